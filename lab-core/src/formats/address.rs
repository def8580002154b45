//! `ip -j addr show`: the addresses of each interface.

use serde_json::Value;

use super::json::{self, Fields, Object};
use super::{names, Error};
use crate::addr::Family;
use crate::model::{Address, Scope};

fn address(mut info: Fields<'_>) -> Result<Address, Error> {
    let Some(address) = info.parsed("local", "an address")? else { return Err(info.missing("local")) };
    let family = Family::of(address);
    let Some(prefix_len) = info.number::<u8>("prefixlen")? else { return Err(info.missing("prefixlen")) };
    if prefix_len > family.bits() {
        return Err(info.wrong("prefixlen", &prefix_len.into(), "a prefix length of the family"));
    }
    let scope = match info.word("scope")? {
        None => Scope::Global,
        Some(word) => match names::scope(&word) {
            Some(scope) => scope,
            None => return Err(info.wrong("scope", &Value::from(word), "a scope")),
        },
    };
    Ok(Address {
        address,
        prefix_len,
        peer: info.parsed("address", "an address")?,
        scope,
        secondary: info.flag("secondary")?,
        deprecated: info.flag("deprecated")?,
        temporary: info.flag("temporary")?,
        tentative: info.flag("tentative")? | info.flag("dadfailed")?,
    })
}

/// Reads the addresses of each interface, in the order listed. An interface
/// without addresses is listed too. The prefix length of a point-to-point
/// address is that of its peer.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str) -> Result<Vec<(String, Vec<Address>)>, Error> {
    let mut interfaces = Vec::new();
    for mut link in json::objects(file, text)? {
        let name = link.required("ifname")?;
        let infos = link.objects("addr_info")?.unwrap_or_default();
        interfaces.push((name, infos.into_iter().map(address).collect::<Result<_, _>>()?));
    }
    Ok(interfaces)
}

/// Prints the addresses, one interface a line.
pub fn print(interfaces: &[(String, Vec<Address>)]) -> String {
    let info = |a: &Address| {
        let mut object = Object::default();
        object.set("family", if a.address.is_ipv4() { "inet" } else { "inet6" });
        object.set("local", a.address.to_string());
        object.show("address", a.peer);
        object.set("prefixlen", a.prefix_len);
        object.set("scope", names::scope_name(a.scope));
        object.flag("secondary", a.secondary);
        object.flag("deprecated", a.deprecated);
        object.flag("temporary", a.temporary);
        object.flag("tentative", a.tentative);
        Value::Object(object.0)
    };
    json::array(interfaces.iter().map(|(name, addresses)| {
        let mut object = Object::default();
        object.set("ifname", name.clone());
        object.set("addr_info", addresses.iter().map(info).collect::<Vec<_>>());
        Value::Object(object.0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.2.7.1","prefixlen":24,"scope":"global"},{"family":"inet","local":"10.2.7.9","prefixlen":24,"scope":"global","secondary":true},{"family":"inet6","local":"fe80::5b","prefixlen":64,"scope":"link","tentative":true}]},
{"ifname":"tun0","addr_info":[{"family":"inet","local":"10.8.0.1","address":"10.8.0.2","prefixlen":32,"scope":"global"}]},
{"ifname":"br0","addr_info":[]}]
"#;

    #[test]
    fn reads_and_prints() {
        let interfaces = parse("addr.json", TEXT).unwrap();
        assert_eq!(interfaces.len(), 4);
        let eth0 = &interfaces[1].1;
        assert!(eth0[1].secondary && eth0[2].tentative && eth0[2].scope == Scope::Link);
        assert_eq!(interfaces[2].1[0].peer, Some("10.8.0.2".parse().unwrap()));
        assert_eq!(print(&interfaces), TEXT);
    }

    #[test]
    fn reads_what_the_tool_prints() {
        let text = r#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK"],"addr_info":[{}]},{},
 {"ifindex":2,"ifname":"eth0","addr_info":[{"family":"inet6","local":"fd00::1","prefixlen":64,"scope":"global",
  "deprecated":true,"dadfailed":true,"valid_life_time":4294967295,"preferred_life_time":0}]}]"#;
        let interfaces = parse("addr.json", text).unwrap();
        assert_eq!(interfaces[0].1, []);
        assert!(interfaces[1].1[0].tentative && interfaces[1].1[0].deprecated);
    }

    #[test]
    fn damage_is_named() {
        let message =
            |from: &str, to: &str| parse("addr.json", &TEXT.replace(from, to)).unwrap_err().to_string();
        assert_eq!(
            message("10.2.7.9", "10.2.7.900"),
            "addr.json:2: bad value: `local` is not an address: `\"local\":\"10.2.7.900\"`"
        );
        assert_eq!(
            message("\"prefixlen\":64", "\"prefixlen\":129"),
            "addr.json:2: bad value: `prefixlen` is not a prefix length of the family: `\"prefixlen\":129`"
        );
        assert_eq!(
            message("\"scope\":\"host\"", "\"scope\":7"),
            "addr.json:1: bad value: `scope` is not a scope: `\"scope\":\"7\"`"
        );
        assert_eq!(
            parse("addr.json", &TEXT[..80]).unwrap_err().to_string(),
            r#"addr.json:1: the file ends too early: EOF while parsing an object: `:"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,`"#
        );
    }
}
