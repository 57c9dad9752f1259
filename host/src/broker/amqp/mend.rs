//! Bytes on which lapin would choke, mended before it sees them.
//!
//! AMQP's short strings (property values, header names, routing keys) are bytes, and RabbitMQ passes them on as they are;
//! lapin insists on UTF-8 and gives the whole connection up where it is not. One message with a binary `correlation_id`
//! would end all consumption, be delivered again, and end it again, for ever. Tables may also nest as deep as a frame is
//! long, and lapin's parser recurses on its thread's stack. So bytes that are not text become `?`, and what nests too
//! deep becomes a string of its own bytes. Both keep every length as it is.

/// ASCII's own character for what cannot be represented.
const SUBSTITUTE: u8 = 0x1a;
/// Beyond this, tables and arrays in headers are not looked into. RabbitMQ's own go three deep (`x-death`).
const DEPTH: usize = 32;

/// A frame's header: type, channel, length of the payload.
pub(super) const HEAD: usize = 7;
/// AMQP's frame types: method, content header, body, heartbeat.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// Far above any `frame_max`; more is no AMQP.
const LONGEST: usize = 64 << 20;

/// How long the frame at the beginning of `bytes` is, with its end octet. `Err`: this is no frame.
pub(super) fn frame_length(bytes: &[u8]) -> Result<Option<usize>, NoFrame> {
    match bytes.first() {
        Some(&(METHOD | HEADER | BODY | HEARTBEAT)) | None => {}
        Some(_) => return Err(NoFrame),
    }
    let Some(&[a, b, c, d]) = bytes.get(3..HEAD) else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > LONGEST { Err(NoFrame) } else { Ok(Some(HEAD + length + 1)) }
}

/// The peer does not speak AMQP; let lapin say so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoFrame;

/// Mend one whole frame.
pub(super) fn mend(frame: &mut [u8]) {
    let Some((&mut kind, _)) = frame.split_first_mut() else { return };
    let end = frame.len().saturating_sub(1);
    let Some(payload) = frame.get_mut(HEAD..end) else { return };
    let mut cursor = Cursor::new(payload);
    // `None`: it ends too early. lapin will say so.
    let _ = match kind {
        METHOD => cursor.method(),
        HEADER => cursor.content_header(),
        _ => None,
    };
}

pub(super) struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a payload.
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }
}

impl Cursor<'_> {
    /// A property of the server that is text, in a `connection.start`.
    pub(super) fn server_property(&mut self, wanted: &[u8]) -> Option<String> {
        if (self.u16()?, self.u16()?) != (10, 10) {
            return None;
        }
        self.skip(2)?; // AMQP's version
        let length = self.u32()?;
        let end = self.at.checked_add(length)?;
        while self.at < end {
            let name = self.u8()?.into();
            let found = self.skip(name)? == wanted;
            if found && self.bytes.get(self.at) == Some(&b'S') {
                self.skip(1)?;
                let length = self.u32()?;
                return String::from_utf8(self.skip(length)?.to_vec()).ok();
            }
            self.value(0)?;
        }
        None
    }

    fn skip(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.at.checked_add(n)?;
        let skipped = self.bytes.get_mut(self.at..end)?;
        self.at = end;
        Some(skipped)
    }

    fn u8(&mut self) -> Option<u8> {
        self.skip(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.skip(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Option<usize> {
        self.skip(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
    }

    fn short_string(&mut self) -> Option<()> {
        let length = self.u8()?.into();
        self.skip(length).map(|bytes| make_text(bytes, b'?'))
    }

    /// A `message_id`: bytes that are no text become a control character, so that it is not taken for another's text.
    fn message_id(&mut self) -> Option<()> {
        let length = self.u8()?.into();
        self.skip(length).map(|bytes| make_text(bytes, SUBSTITUTE))
    }

    /// Methods that carry what others chose: names, keys, and texts that RabbitMQ cuts at 255 bytes, in the middle of a
    /// character if need be.
    fn method(&mut self) -> Option<()> {
        match (self.u16()?, self.u16()?) {
            // connection.close, channel.close: code, text
            (10, 50) | (20, 40) => {
                self.skip(2)?;
                self.short_string()
            }
            // connection.blocked: reason
            (10, 60) => self.short_string(),
            // basic.return: code, text, exchange, key
            (60, 50) => {
                self.skip(2)?;
                (0..3).try_for_each(|_| self.short_string())
            }
            // basic.deliver: consumer, tag and flag, exchange, key
            (60, 60) => {
                self.short_string()?;
                self.skip(9)?;
                (0..2).try_for_each(|_| self.short_string())
            }
            _ => Some(()),
        }
    }

    fn content_header(&mut self) -> Option<()> {
        // Class, weight, size of the body.
        self.skip(12)?;
        let flags = self.u16()?;
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                // headers
                13 => self.table(0)?,
                // delivery_mode, priority
                12 | 11 => self.skip(1).map(|_| ())?,
                // timestamp
                6 => self.skip(8).map(|_| ())?,
                7 => self.message_id()?,
                // content_type, content_encoding, correlation_id, reply_to, expiration, type, user_id, app_id, cluster_id
                _ => self.short_string()?,
            }
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let length = self.u32()?;
        let end = self.at.checked_add(length)?;
        while self.at < end {
            self.short_string()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        let length = self.u32()?;
        let end = self.at.checked_add(length)?;
        while self.at < end {
            self.value(depth)?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let kind = self.skip(1)?;
        if matches!(kind[0], b'F' | b'A') && depth + 1 >= DEPTH {
            // A long string has the same form: its length, its bytes.
            kind[0] = b'S';
        }
        let width = match kind[0] {
            b'F' => return self.table(depth + 1),
            b'A' => return self.array(depth + 1),
            b'S' | b'x' => self.u32()?,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'V' => 0,
            _ => return None,
        };
        self.skip(width).map(|_| ())
    }
}

/// Every byte that is not text becomes `place`.
fn make_text(bytes: &mut [u8], place: u8) {
    let mut from = 0;
    while let Err(error) = std::str::from_utf8(&bytes[from..]) {
        let bad = from + error.valid_up_to();
        let upto = error.error_len().map_or(bytes.len(), |n| bad + n);
        bytes[bad..upto].fill(place);
        from = upto;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1], &(payload.len() as u32).to_be_bytes()[..], payload, b"\xce"].concat()
    }

    fn short(text: &[u8]) -> Vec<u8> {
        [&[text.len() as u8], text].concat()
    }

    fn content_header(flags: u16, properties: &[u8]) -> Vec<u8> {
        frame(HEADER, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], &flags.to_be_bytes()[..], properties].concat())
    }

    fn mended(mut frame: Vec<u8>) -> Vec<u8> {
        mend(&mut frame);
        frame
    }

    #[test]
    fn what_is_text_is_left_alone() {
        let table = [&16u32.to_be_bytes()[..], &short("ü".as_bytes()), b"S", &6u32.to_be_bytes(), &[0xff; 6]].concat();
        let everything =
            [&short(b"a"), &short(b"b"), &table[..], &[2, 5], &short(b"c"), &short("ü".as_bytes())].concat();
        let header = content_header(0b1111_1110_0000_0000, &everything);
        assert_eq!(mended(header.clone()), header);
        let body = frame(BODY, &[0xff; 9]);
        assert_eq!(mended(body.clone()), body);
    }

    #[test]
    fn what_is_no_text_becomes_question_marks_of_the_same_length() {
        let properties = |text: &[u8]| [&short(b"ok"), &[2][..], &short(text), &[0; 8], &short(text)].concat();
        let flags = 1 << 15 | 1 << 12 | 1 << 10 | 1 << 6 | 1 << 5;
        assert_eq!(
            mended(content_header(flags, &properties(b"a\xffb\xc3"))),
            content_header(flags, &properties(b"a?b?"))
        );
        let id = |text: &[u8]| content_header(1 << 7, &short(text));
        assert_eq!(mended(id(b"a\xff?")), id(b"a\x1a?"), "distinct from every text");
        let close = |text: &[u8]| frame(METHOD, &[&[0, 20, 0, 40, 1, 148], &short(text)[..], &[0; 4]].concat());
        assert_eq!(mended(close(b"NOT_FOUND - \xe2\x82")), close(b"NOT_FOUND - ??"));
        let deliver = |key: &[u8]| {
            let end = [&short(b""), &short(key)[..]].concat();
            frame(METHOD, &[&[0, 60, 0, 60], &short(b"tag")[..], &[0; 9], &end].concat())
        };
        assert_eq!(mended(deliver(b"\x80")), deliver(b"?"));
    }

    #[test]
    fn what_nests_too_deep_becomes_a_string() {
        let mut value = vec![b'V'];
        for _ in 0..100 {
            let entry = [&short(b"\xff")[..], &value].concat();
            value = [b"F", &(entry.len() as u32).to_be_bytes()[..], &entry].concat();
        }
        let header = mended(content_header(1 << 13, &value[1..]));
        // Each level is six bytes: F, four of length, a name of one with its length in front.
        let kinds: Vec<u8> = header.iter().skip(HEAD + 14 + 6).step_by(7).copied().take(DEPTH).collect();
        assert_eq!(kinds, [vec![b'F'; DEPTH - 1], vec![b'S']].concat());
    }

    #[test]
    fn nothing_that_a_peer_can_send_is_a_panic() {
        let good = content_header(0xffff, &[&short(b"a\xff")[..], &[0; 64]].concat());
        for end in 0..good.len() {
            for lie in [0, 1, 0x7f, 0xff] {
                let mut bytes = good[..end].to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last = lie;
                }
                mend(&mut bytes);
            }
        }
    }

    #[test]
    fn a_frame_is_told_from_what_is_none() {
        assert_eq!(frame_length(b""), Ok(None));
        assert_eq!(frame_length(&[8, 0, 0, 0]), Ok(None));
        assert_eq!(frame_length(&[8, 0, 0, 0, 0, 0, 0]), Ok(Some(8)));
        assert_eq!(frame_length(b"AMQP\0\0\x09\x01"), Err(NoFrame));
        assert_eq!(frame_length(b"HTTP/1.1 400"), Err(NoFrame));
        assert_eq!(frame_length(&[1, 0, 0, 0xff, 0xff, 0xff, 0xff]), Err(NoFrame));
    }
}
