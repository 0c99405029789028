//! The content of a whole reply, to be changed and written again.

use super::reader::{Reader, Shape, Token};

/// Limit of nesting. No shard map is nested deeper, and each level takes a frame of the stack.
const DEEPEST: u8 = 16;

/// A reply, taken apart no further than needed to change it and write it again.
#[derive(Debug)]
pub(crate) enum Value {
    /// Any value of one line, a null string or array among them; without the line end.
    Line(Vec<u8>),
    /// A string with a length: its type and its content.
    String(u8, Vec<u8>),
    /// An array, a set or a map, with keys and values in turn.
    Aggregate(u8, Vec<Value>),
}

impl Value {
    /// A bulk string.
    pub(crate) fn bulk(text: &str) -> Self {
        Self::String(b'$', text.into())
    }

    /// An integer.
    pub(crate) fn integer(number: u16) -> Self {
        Self::Line(format!(":{number}").into())
    }

    /// Parses a whole reply. `None` if it is not one value, is nested too deep, or has a push or attributes in it.
    pub(crate) fn parse(reply: &[u8]) -> Option<Self> {
        let mut parser = Parser {
            reader: Reader::default(),
            rest: reply,
        };
        let value = parser.value(DEEPEST)?;
        parser.rest.is_empty().then_some(value)
    }

    /// Appends the value to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: u8, length: usize| {
            out.push(kind);
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        match self {
            Self::Line(line) => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            Self::String(kind, text) => {
                head(out, *kind, text.len());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Self::Aggregate(kind, elements) => {
                let pairs = *kind == b'%';
                let length = if pairs {
                    elements.len() / 2
                } else {
                    elements.len()
                };
                head(out, *kind, length);
                for element in elements {
                    element.write(out);
                }
            }
        }
    }

    /// Returns the elements of an aggregate; none for any other value.
    pub(crate) fn elements(&mut self) -> &mut [Self] {
        match self {
            Self::Aggregate(_, elements) => elements,
            _ => &mut [],
        }
    }

    /// Changes the elements of an aggregate.
    pub(crate) fn elements_mut(&mut self, change: impl FnOnce(&mut Vec<Self>)) {
        if let Self::Aggregate(_, elements) = self {
            change(elements);
        }
    }

    /// Returns the value of a field. RESP2 has a map as an array of keys and values in turn.
    pub(crate) fn field(&mut self, name: &str) -> Option<&mut Self> {
        let mut pairs = self.elements().chunks_exact_mut(2);
        pairs.find_map(|pair| match pair {
            [key, value] if key.text() == Some(name) => Some(value),
            _ => None,
        })
    }

    /// Returns the text of a string or status.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::String(_, text) => str::from_utf8(text).ok(),
            Self::Line(line) => str::from_utf8(line.strip_prefix(b"+")?).ok(),
            Self::Aggregate(..) => None,
        }
    }

    /// Returns the port that an integer is.
    pub(crate) fn port(&self) -> Option<u16> {
        let Self::Line(line) = self else { return None };
        str::from_utf8(line.strip_prefix(b":")?).ok()?.parse().ok()
    }
}

struct Parser<'a> {
    reader: Reader,
    rest: &'a [u8],
}

impl Parser<'_> {
    /// Parses one value, nested at most `depth` deep.
    fn value(&mut self, depth: u8) -> Option<Value> {
        let (token, text) = self.token()?;
        let Token::Line(line) = token else {
            return None;
        };
        match (line.kind, line.shape()?) {
            (_, Shape::Scalar) => Some(Value::Line(text)),
            (kind, Shape::String(length)) => {
                self.reader.read_string(length);
                let (_, text) = self.token()?;
                Some(Value::String(kind, text))
            }
            (kind @ (b'*' | b'~' | b'%'), Shape::Aggregate(count)) => {
                let depth = depth.checked_sub(1)?;
                let elements: Option<_> = (0..count).map(|_| self.value(depth)).collect();
                Some(Value::Aggregate(kind, elements?))
            }
            (_, Shape::Aggregate(_) | Shape::Attributes(_)) => None,
        }
    }

    /// Takes a token off the reply, without its line end.
    fn token(&mut self) -> Option<(Token, Vec<u8>)> {
        let (token, length) = self.reader.next(self.rest)?;
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some((token, text.strip_suffix(b"\r\n")?.to_vec()))
    }
}
