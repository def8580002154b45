//! What `ip -d -j link show` says of a device by its kind: VLANs, bonds,
//! macvlans, VRFs, tunnels.

use std::net::IpAddr;

use serde_json::Value;

use super::json::{Fields, Object};
use super::{names, Error};
use crate::addr::Family;
use crate::model::{Bond, MacvlanMode, Tunnel, TunnelKind, VlanTag};

/// Fields of a tunnel device that do not decide where a packet goes.
const TUNNEL_HARMLESS: [&str; 5] = ["encap_limit", "flowinfo", "flowlabel", "tclass", "6rd-prefixlen"];

/// A tunnel's settings, and what of them is not modelled, by name.
type Read = Result<(Tunnel, Vec<(String, Value)>), Error>;

pub(super) fn vlan(data: Option<Fields<'_>>) -> Result<Option<VlanTag>, Error> {
    let Some(mut data) = data else { return Ok(None) };
    let service = data.string("protocol")?.is_some_and(|p| p.eq_ignore_ascii_case("802.1ad"));
    Ok(data.number("id")?.map(|id| VlanTag { id, service }))
}

pub(super) fn print_vlan(tag: VlanTag) -> Object {
    let mut data = Object::default();
    data.set("protocol", if tag.service { "802.1ad" } else { "802.1Q" });
    data.set("id", tag.id);
    data
}

/// A bond, and what of it is not modelled: ports that stand by and take frames
/// all the same, and a mode that sends by all ports.
pub(super) fn bond(data: Option<Fields<'_>>) -> Result<(Bond, Option<Value>), Error> {
    let Some(mut data) = data else { return Ok((Bond { mode: "balance-rr".into(), active: None }, None)) };
    let mode = data.word("mode")?.unwrap_or_else(|| "balance-rr".into());
    let strange = match data.flag("all_slaves_active")? {
        true => Some(Value::from("all_slaves_active")),
        false => (mode == "broadcast").then(|| Value::from("broadcast")),
    };
    Ok((Bond { mode, active: data.string("active_slave")? }, strange))
}

pub(super) fn print_bond(bond: &Bond) -> Object {
    let mut data = Object::default();
    data.set("mode", bond.mode.clone());
    data.show("active_slave", bond.active.as_ref());
    data
}

pub(super) fn macvlan(data: Option<Fields<'_>>) -> Result<Option<MacvlanMode>, Error> {
    let mode = match data {
        Some(mut data) => data.string("mode")?,
        None => None,
    };
    let mode = match mode.as_deref() {
        Some("private") => MacvlanMode::Private,
        Some("bridge") => MacvlanMode::Bridge,
        Some("passthru") => MacvlanMode::Passthru,
        None | Some("vepa") => MacvlanMode::Vepa,
        Some(_) => return Ok(None),
    };
    Ok(Some(mode))
}

pub(super) fn print_macvlan(mode: MacvlanMode) -> Object {
    let mut data = Object::default();
    data.set("mode", mode.to_string());
    data
}

/// GRE's key, which is printed as a number or as an address.
fn key(data: &mut Fields<'_>, key: &str) -> Result<Option<u32>, Error> {
    let Some(word) = data.word(key)? else { return Ok(None) };
    let number = names::number(&word).and_then(|n| u32::try_from(n).ok());
    let dotted = word.parse::<std::net::Ipv4Addr>().ok().map(|a| a.to_bits());
    match number.or(dotted) {
        Some(number) => Ok(Some(number)),
        None => Err(data.wrong(key, &Value::from(word), "a key")),
    }
}

/// The address of a tunnel's end; `any` and none are the same.
fn end(data: &mut Fields<'_>, key: &str) -> Result<Option<IpAddr>, Error> {
    match data.string(key)? {
        None => Ok(None),
        Some(word) if word == "any" => Ok(None),
        Some(word) => match word.parse::<IpAddr>() {
            Ok(address) => Ok(Some(address).filter(|a| !a.is_unspecified())),
            Err(_) => Err(data.wrong(key, &Value::from(word), "an address")),
        },
    }
}

pub(super) fn tunnel(kind: TunnelKind, data: Option<Fields<'_>>) -> Read {
    let mut tunnel = Tunnel::new(kind);
    let Some(mut data) = data else { return Ok((tunnel, Vec::new())) };
    // Both ends must agree on these, or packets are lost on arrival.
    let agreed = ["icsum", "ocsum", "iseq", "oseq"].map(|key| (key, data.map.get(key).cloned()));
    tunnel.local = end(&mut data, "local")?;
    tunnel.remote = end(&mut data, "remote")?;
    tunnel.link = data.string("link")?;
    tunnel.df = data.switch("pmtudisc")?.unwrap_or(tunnel.df);
    tunnel.ignore_df = data.flag("ignore_df")?;
    tunnel.key_in = key(&mut data, "ikey")?;
    tunnel.key_out = key(&mut data, "okey")?;
    tunnel.checksum = data.flag("ocsum")?;
    tunnel.sequence = data.flag("oseq")?;
    data.map.retain(|key, _| key != "icsum" && key != "iseq");
    if kind.outer() == Family::Ipv6 {
        tunnel.encap_limit = !data.flag("ip6_tnl_f_ign_encap_limit")?;
    }
    let ttl = match data.word("ttl")? {
        Some(ttl) => Some(ttl),
        None => data.word("hoplimit")?,
    };
    match ttl.as_deref() {
        None | Some("inherit") => {}
        Some(word) => match word.parse() {
            Ok(ttl) => tunnel.ttl = ttl,
            Err(_) => return Err(data.wrong("ttl", &Value::from(word), "a TTL")),
        },
    }
    match data.string("proto")?.as_deref() {
        Some("ip4ip4" | "ipip" | "ipip6" | "ip4ip6") => tunnel.inside = Some(Family::Ipv4),
        Some("ip6ip" | "ip6ip6") => tunnel.inside = Some(Family::Ipv6),
        // An ipip device that takes anything takes IPv4 and MPLS.
        Some("any") if kind != TunnelKind::Ipip => tunnel.inside = None,
        None | Some("any") => {}
        Some(other) => {
            data.map.insert("proto".to_owned(), Value::from(other));
        }
    }
    let off = |value: &Value| matches!(value, Value::Bool(false) | Value::Null) || *value == 0;
    let strange = |(key, value): (&String, &Value)| {
        let plain = (key == "tos" && *value == "0x0") || (key == "encap" && value["type"] == "none");
        let known = TUNNEL_HARMLESS.contains(&key.as_str());
        (!off(value) && !plain && !known).then(|| (format!("{} {key}", kind.name()), value.clone()))
    };
    let mut left: Vec<(String, Value)> = data.map.iter().filter_map(strange).collect();
    let agreed = agreed.into_iter().filter_map(|(key, value)| Some((key, value.filter(|v| !off(v))?)));
    left.extend(agreed.map(|(key, value)| (format!("{} {key}", kind.name()), value)));
    Ok((tunnel, left))
}

pub(super) fn print_tunnel(tunnel: &Tunnel) -> Object {
    let mut data = Object::default();
    match (tunnel.kind, tunnel.inside) {
        (TunnelKind::Ipip, _) => data.set("proto", "any"),
        (TunnelKind::Sit, Some(_)) => data.set("proto", "ip6ip"),
        (TunnelKind::Ip6tnl, Some(Family::Ipv4)) => data.set("proto", "ipip6"),
        (TunnelKind::Ip6tnl, Some(Family::Ipv6)) => data.set("proto", "ip6ip6"),
        (TunnelKind::Sit | TunnelKind::Ip6tnl, None) => data.set("proto", "any"),
        _ => {}
    }
    data.show("link", tunnel.link.as_ref());
    data.show("remote", tunnel.remote);
    data.show("local", tunnel.local);
    data.set("ttl", tunnel.ttl);
    if tunnel.kind.outer() == Family::Ipv4 {
        data.set("pmtudisc", tunnel.df);
    }
    data.flag("ignore_df", tunnel.ignore_df);
    let dotted = |key: u32| std::net::Ipv4Addr::from_bits(key);
    data.show("ikey", tunnel.key_in.map(dotted));
    data.show("okey", tunnel.key_out.map(dotted));
    data.flag("ocsum", tunnel.checksum);
    data.flag("oseq", tunnel.sequence);
    if tunnel.kind.outer() == Family::Ipv6 {
        data.flag("ip6_tnl_f_ign_encap_limit", !tunnel.encap_limit);
    }
    data
}
