//! A component as the tree of its sections, to be taken apart and put together again.

/// One section.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Its id, and what is in it.
    Plain(u8, Vec<u8>),
    /// A core module or a component: the section's id, its eight bytes of header, and its own sections.
    Nested(u8, [u8; 8], Vec<Part>),
}

const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
const HEADER: [u8; 8] = [0, b'a', b's', b'm', 13, 0, 1, 0];

impl Part {
    /// A component within another.
    pub fn component(sections: Vec<Part>) -> Part {
        Part::Nested(COMPONENT, HEADER, sections)
    }
}

/// The sections of a component; `None`: it is none.
pub fn parts(file: &[u8]) -> Option<Vec<Part>> {
    let (header, mut rest) = file.split_first_chunk::<8>()?;
    let is_component = header[6] == 1;
    let mut parts = Vec::new();
    while let Some((id, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (body, after) = after.split_at_checked(length)?;
        rest = after;
        let nested = is_component && matches!(*id, CORE_MODULE | COMPONENT);
        parts.push(match (nested, body.first_chunk::<8>()) {
            (true, Some(header)) => Part::Nested(*id, *header, self::parts(body)?),
            _ => Part::Plain(*id, body.to_vec()),
        });
    }
    Some(parts)
}

/// The component of these sections, every length as it is.
pub fn whole(parts: &[Part]) -> Vec<u8> {
    let mut file = HEADER.to_vec();
    write(parts, &mut file);
    file
}

fn write(parts: &[Part], into: &mut Vec<u8>) {
    for part in parts {
        let (id, body) = match part {
            Part::Plain(id, bytes) => (*id, bytes.clone()),
            Part::Nested(id, header, inner) => {
                let mut body = header.to_vec();
                write(inner, &mut body);
                (*id, body)
            }
        };
        into.push(id);
        let mut length = body.len();
        while length > 0x7f {
            into.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        into.push(length as u8);
        into.extend(body);
    }
}

/// A number as WebAssembly writes it (LEB128), and what follows.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[test]
fn what_is_taken_apart_and_put_together_again_is_the_same() {
    let file = crate::guest::Guest::default().build();
    let parts = parts(&file).unwrap();
    assert!(parts.iter().filter(|part| matches!(part, Part::Nested(..))).count() >= 2);
    assert_eq!(whole(&parts), file);
}
