//! Replies, written in RESP2 or RESP3.

/// Writes a status.
pub(crate) fn status(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// Writes an error; `text` begins with its code. Line ends within become blanks, as in Redis.
pub(crate) fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', &text.replace(['\r', '\n'], " "));
}

/// Writes an integer.
pub(crate) fn integer(out: &mut Vec<u8>, value: i64) {
    line(out, b':', &value.to_string());
}

/// Writes a bulk string.
pub(crate) fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    line(out, b'$', &value.len().to_string());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the absence of a string, as `protocol` has it.
pub(crate) fn null(out: &mut Vec<u8>, protocol: u8) {
    out.extend_from_slice(if protocol == 3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// Writes the head of an array.
pub(crate) fn array(out: &mut Vec<u8>, length: usize) {
    line(out, b'*', &length.to_string());
}

/// Writes the head of a map, which RESP2 has as an array twice as long.
pub(crate) fn map(out: &mut Vec<u8>, protocol: u8, length: usize) {
    match protocol {
        3 => line(out, b'%', &length.to_string()),
        _ => array(out, length * 2),
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}
