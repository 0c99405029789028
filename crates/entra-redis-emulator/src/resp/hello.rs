//! `HELLO`, the one command that proxy and store both read.

use super::integer_of;

/// A parsed `HELLO`; without `Debug`, because it has a token in it.
pub(crate) struct Hello<'a> {
    pub(crate) version: Option<u8>,
    /// User and password of its `AUTH` option.
    pub(crate) credentials: Option<(&'a [u8], &'a [u8])>,
    pub(crate) name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    /// Parses the arguments, without the command's name.
    ///
    /// # Errors
    ///
    /// The text of Redis' error reply. It repeats the name of an option, never its value.
    pub(crate) fn parse(arguments: &[&'a [u8]]) -> Result<Self, String> {
        let mut hello = Self {
            version: None,
            credentials: None,
            name: None,
        };
        let Some((version, mut options)) = arguments.split_first() else {
            return Ok(hello);
        };
        let version =
            integer_of(version).ok_or("ERR Protocol version is not an integer or out of range")?;
        hello.version = match version {
            2 => Some(2),
            3 => Some(3),
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
        while let Some((option, rest)) = options.split_first() {
            options = match rest {
                [user, token, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                    hello.credentials = Some((*user, *token));
                    rest
                }
                [name, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                    hello.name = Some(*name);
                    rest
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option}'"));
                }
            };
        }
        Ok(hello)
    }

    /// Returns the same command without its `AUTH` option.
    pub(crate) fn without_credentials(&self) -> Vec<&'a [u8]> {
        let mut arguments: Vec<&[u8]> = vec![b"HELLO"];
        match self.version {
            Some(2) => arguments.push(b"2"),
            Some(_) => arguments.push(b"3"),
            None => {}
        }
        if let Some(name) = self.name {
            arguments.extend([b"SETNAME".as_slice(), name]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_is_parsed_in_any_order_and_forwarded_without_its_token() {
        let words: [&[u8]; 7] = [b"hello", b"3", b"setname", b"n", b"auth", b"u", b"t"];
        let Ok(hello) = Hello::parse(&words[1..]) else {
            panic!("a well-formed HELLO was refused");
        };
        let expected: (&[u8], &[u8]) = (b"u", b"t");
        assert_eq!(hello.credentials, Some(expected));
        let rest: [&[u8]; 4] = [b"HELLO", b"3", b"SETNAME", b"n"];
        assert_eq!(hello.without_credentials(), rest);
        let refused = |words: &[&[u8]]| Hello::parse(&words[1..]).err().unwrap_or_default();
        assert!(refused(&[b"HELLO", b"4"]).starts_with("NOPROTO"));
        assert!(refused(&[b"HELLO", b"3", b"AUTH", b"u"]).ends_with("option 'AUTH'"));
    }

    mod properties {
        use proptest::{collection::vec, prelude::*};

        use super::*;

        proptest! {
            #[test]
            fn any_hello_is_parsed_or_refused_without_repeating_its_token(
                words in vec(prop_oneof!["AUTH|auth|SETNAME|[0-9]{1,2}|[a-z]{0,8}", Just("hush-hush".to_owned())], 0..9),
            ) {
                let mut arguments: Vec<&[u8]> = vec![b"HELLO", b"3", b"AUTH", b"user", b"hush-hush"];
                arguments.extend(words.iter().map(String::as_bytes));
                match Hello::parse(&arguments[1..]) {
                    Ok(hello) => {
                        prop_assert!(hello.credentials.is_some());
                        let rest = hello.without_credentials();
                        let again = Hello::parse(&rest[1..]).expect("still a HELLO");
                        prop_assert!(again.credentials.is_none());
                        prop_assert_eq!((again.version, again.name), (hello.version, hello.name));
                    }
                    // An option's name may be anything, the value of a right one is not repeated.
                    Err(text) => {
                        let secret = "hush-hush";
                        let is_name = words.iter().any(|word| word == secret);
                        prop_assert!(is_name || !text.contains(secret), "{}", text);
                    }
                }
            }
        }
    }
}
