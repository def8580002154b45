//! `wg show all dump`: WireGuard devices and their peers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{names, Error};
use crate::model::{Wireguard, WireguardPeer};

/// Reads the devices by name. Private and preshared keys are not kept, nor is
/// what is counted.
///
/// # Errors
///
/// A line that has neither the fields of a device nor those of a peer, or a
/// peer of a device that is not listed before it.
pub fn parse(file: &str, text: &str) -> Result<BTreeMap<String, Wireguard>, Error> {
    let mut devices: BTreeMap<String, Wireguard> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| Error::value(file, number, line, format!("{what} is out of form"));
        let none = |word: &str| matches!(word, "off" | "(none)");
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            [name, _private, public, port, mark] => {
                let mark = match none(mark) {
                    true => Some(0),
                    false => names::number(mark).and_then(|n| u32::try_from(n).ok()),
                };
                let device = Wireguard {
                    public_key: (*public).to_owned(),
                    port: port.parse().map_err(|_| wrong("the port"))?,
                    mark: mark.ok_or_else(|| wrong("the mark"))?,
                    peers: Vec::new(),
                };
                devices.insert((*name).to_owned(), device);
            }
            [name, public, preshared, endpoint, allowed, heard, _received, _sent, keepalive] => {
                let Some(device) = devices.get_mut(*name) else { return Err(wrong("the device of a peer")) };
                let endpoint = match none(endpoint) {
                    true => None,
                    false => Some(endpoint.parse().map_err(|_| wrong("the endpoint"))?),
                };
                let allowed = match none(allowed) {
                    true => Vec::new(),
                    false => allowed
                        .split(',')
                        .map(|net| names::net(net).ok_or_else(|| wrong("an allowed address")))
                        .collect::<Result<_, _>>()?,
                };
                let keepalive = match none(keepalive) {
                    true => None,
                    false => Some(keepalive.parse().map_err(|_| wrong("the keepalive"))?),
                };
                device.peers.push(WireguardPeer {
                    public_key: (*public).to_owned(),
                    preshared: !none(preshared),
                    heard: *heard != "0",
                    endpoint,
                    allowed,
                    keepalive,
                });
            }
            _ => return Err(Error::syntax(file, number, line, "a device has 5 fields here, a peer 9")),
        }
    }
    Ok(devices)
}

/// Prints devices as they are read; keys and counters that are not kept are
/// hidden or 0, the time of the last handshake 1.
pub fn print<'a>(devices: impl IntoIterator<Item = (&'a str, &'a Wireguard)>) -> String {
    let mut text = String::new();
    for (name, device) in devices {
        let mark = if device.mark == 0 { "off".to_owned() } else { format!("{:#x}", device.mark) };
        let _ = writeln!(text, "{name}\t(hidden)\t{}\t{}\t{mark}", device.public_key, device.port);
        for peer in &device.peers {
            let nets: Vec<String> = peer.allowed.iter().map(ToString::to_string).collect();
            let or = |word: String, none: &str| if word.is_empty() { none.to_owned() } else { word };
            let _ = writeln!(
                text,
                "{name}\t{}\t{}\t{}\t{}\t{}\t0\t0\t{}",
                peer.public_key,
                if peer.preshared { "(hidden)" } else { "(none)" },
                or(peer.endpoint.map(|e| e.to_string()).unwrap_or_default(), "(none)"),
                or(nets.join(","), "(none)"),
                u8::from(peer.heard),
                or(peer.keepalive.map(|k| k.to_string()).unwrap_or_default(), "off"),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "wg0\t(hidden)\taGVsbG8=\t51820\t0x10\n\
        wg0\tcGVlcg==\t(none)\t10.0.0.1:51820\t10.0.7.2/32,fd00::/64\t1\t0\t0\t25\n\
        wg0\tb3RoZXI=\t(hidden)\t(none)\t(none)\t0\t0\t0\toff\n";

    #[test]
    fn reads_and_prints() {
        let devices = parse("wireguard.dump", TEXT).unwrap();
        let wg0 = &devices["wg0"];
        assert_eq!((wg0.port, wg0.mark, wg0.peers.len()), (51820, 0x10, 2));
        assert_eq!(wg0.peer("fd00::9".parse().unwrap()).unwrap().public_key, "cGVlcg==");
        assert!(wg0.peers[0].heard && !wg0.peers[1].heard);
        assert!(wg0.peer("10.0.7.3".parse().unwrap()).is_none());
        assert_eq!(print(devices.iter().map(|(name, device)| (name.as_str(), device))), TEXT);
    }

    #[test]
    fn damage_is_named() {
        let message = |text: &str| parse("wireguard.dump", text).unwrap_err().to_string();
        assert_eq!(
            message("wg0\t(hidden)\tx\tmany\toff"),
            "wireguard.dump:1: bad value: the port is out of form: `wg0\\t(hidden)\\tx\\tmany\\toff`"
        );
        let orphan = TEXT.lines().nth(1).unwrap();
        assert!(message(orphan).contains("the device of a peer is out of form"));
        assert!(message("wg0\n").contains("a device has 5 fields here, a peer 9"));
    }
}
