//! `bridge -j vlan show`: the VLANs of bridge ports.

use super::{json, Error};
use crate::model::{Origin, Unmodelled};

/// Reads the entries, each as something that is not modelled.
///
/// # Errors
///
/// JSON that is broken.
pub fn parse(file: &str, text: &str) -> Result<Vec<Unmodelled>, Error> {
    let entry = |element: json::Element<'_>| {
        let origin = Origin { file: file.into(), line: element.line };
        let text = element.value()?.to_string();
        Ok(Unmodelled { origin, what: "bridge VLANs of a port".to_owned(), text })
    };
    json::elements(file, text)?.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_each_entry() {
        let text =
            "[{\"ifname\":\"tap0\",\"vlans\":[{\"vlan\":1,\"flags\":[\"PVID\"]}]},\n{\"ifname\":\"br0\"}]";
        let entries = parse("bridge-vlan.json", text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].origin.line, 2);
        assert_eq!(entries[0].text, r#"{"ifname":"tap0","vlans":[{"vlan":1,"flags":["PVID"]}]}"#);
        assert_eq!(parse("bridge-vlan.json", "[]").unwrap(), []);
    }
}
