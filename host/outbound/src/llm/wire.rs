//! Data that a call carries through the guest for its provider: what the provider wants back, and the id that it gave where the guest
//! has another one.

use serde_json::Value;

/// Beginning of an id that the provider gave, as JSON, before the rest.
const ID: char = '#';

/// Where the id that the guest has comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// The provider gave it, or another one did.
    Same,
    /// The provider gave this one, which another call had already.
    Other(String),
    /// The provider gave none; the host made it.
    Made,
}

/// The text that goes to the guest; `None`: there is nothing to carry. `tag` names the kind of provider.
pub(super) fn pack(tag: &str, given: &Given, rest: Option<&str>) -> Option<String> {
    let id = match (given, rest) {
        (Given::Same, None) => return None,
        (Given::Same, Some(rest)) if !rest.starts_with(ID) => return Some(format!("{tag}{rest}")),
        (Given::Same, _) => Value::Bool(true),
        (Given::Other(id), _) => Value::from(id.as_str()),
        (Given::Made, _) => Value::from(""),
    };
    Some(format!("{tag}{ID}[{id}]{}", rest.unwrap_or_default()))
}

/// The provider's id and the rest. What another kind of provider gave is left out: the conversation has moved, and it would
/// mean nothing here.
pub(super) fn unpack<'a>(tag: &str, opaque: Option<&'a str>) -> (Given, Option<&'a str>) {
    let Some(text) = opaque.and_then(|text| text.strip_prefix(tag)) else { return (Given::Same, None) };
    let Some(packed) = text.strip_prefix(ID) else { return (Given::Same, Some(text)) };
    let mut ids = serde_json::Deserializer::from_str(packed).into_iter::<[Value; 1]>();
    let Some(Ok([id])) = ids.next() else { return (Given::Same, Some(text)) };
    let given = match id {
        Value::String(id) if id.is_empty() => Given::Made,
        Value::String(id) => Given::Other(id),
        _ => Given::Same,
    };
    (given, Some(&packed[ids.byte_offset()..]).filter(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_by_the_same_kind_alone() {
        for (given, rest) in [
            (Given::Same, Some("{\"a\":1}")),
            (Given::Other("functions.clock:0".into()), None),
            (Given::Other("a\"#b".into()), Some("{\"a\":1}")),
            (Given::Other("a".into()), Some("[1]")),
            (Given::Same, Some("#sig==")),
            (Given::Made, None),
            (Given::Made, Some("sig==")),
        ] {
            let packed = pack("openai:", &given, rest).unwrap();
            assert_eq!(unpack("openai:", Some(&packed)), (given, rest), "{packed}");
            assert_eq!(unpack("gemini:", Some(&packed)), (Given::Same, None));
        }
        assert_eq!(pack("openai:", &Given::Same, None), None);
        assert_eq!(unpack("openai:", None), (Given::Same, None));
    }
}
