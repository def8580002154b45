//! WireGuard: whom a packet is sent to, and from whom one is taken.

use super::build::{ping, Build};
use super::tunnel::outer;
use super::{answer, seen, stage};
use crate::model::{AnswerKind, InterfaceKind, Outcome, Stage, Wireguard, WireguardPeer};

/// A line whose ends trust each other for these prefixes.
fn wireguard(to: &str, from: &str) -> Build {
    let mut lab = Build::line();
    let end = |own: &str, peer: &str, endpoint: &str, allowed: &str| {
        InterfaceKind::Wireguard(Wireguard {
            public_key: own.into(),
            port: 51820,
            mark: 0,
            peers: vec![WireguardPeer {
                public_key: peer.into(),
                preshared: false,
                heard: true,
                endpoint: endpoint.parse().ok(),
                allowed: vec![allowed.parse().unwrap()],
                keepalive: None,
            }],
        })
    };
    lab.device("client", "wg0", end("c", "s", "10.0.2.2:51820", to), &["10.9.0.1/24"]);
    lab.device("server", "wg0", end("s", "c", "10.0.1.2:51820", from), &["10.9.0.2/24"]);
    lab
}

#[test]
fn wireguard_wraps_a_packet_for_the_peer_of_its_destination() {
    let lab = wireguard("10.9.0.0/24", "10.9.0.0/24");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.9.0.2"))]);
    assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "server:wg0"));
    let outer = outer(&journey)[0];
    assert_eq!(outer.to_string(), "udp 10.0.1.2:51820 -> 10.0.2.2:51820");
    // Padded to sixteen bytes, with 60 of headers and a tag.
    assert_eq!(outer.length, seen(&journey).length.next_multiple_of(16) + 60);
    assert!(!outer.df);
}

#[test]
fn wireguard_without_a_peer_for_the_destination_is_host_unreachable() {
    let mut lab = wireguard("10.9.0.9/32", "10.9.0.0/24");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.9.0.2"))]);
    assert_eq!(*stage(&journey), Stage::HostUnreachable);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, 1));
    // Where the answer is lost, the reason is what is seen.
    lab.rules("client", "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p icmp --icmp-type 3 -j DROP");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.9.0.2"))]);
    assert_eq!(*stage(&journey), Stage::WireguardNoPeer);
}

#[test]
fn a_wireguard_peer_may_only_send_from_its_addresses() {
    let lab = wireguard("10.9.0.0/24", "10.9.0.7/32");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.9.0.2"))]);
    assert_eq!(*stage(&journey), Stage::WireguardAllowedIps);
}

#[test]
fn what_was_encrypted_for_another_key_is_not_taken() {
    let mut lab = wireguard("10.9.0.0/24", "10.9.0.0/24");
    lab.change("server", "wg0", |i| {
        if let InterfaceKind::Wireguard(settings) = &mut i.kind {
            settings.public_key = "other".into();
        }
    });
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.9.0.2"))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
    assert_eq!(*stage(&journey), Stage::TunnelUnknown);
}

#[test]
fn nothing_is_claimed_of_a_wireguard_peer_that_was_never_heard_of() {
    let mut lab = wireguard("10.9.0.0/24", "10.9.0.0/24");
    lab.change("client", "wg0", |i| {
        if let InterfaceKind::Wireguard(settings) = &mut i.kind {
            settings.peers[0].heard = false;
        }
    });
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.9.0.2"))]);
    assert!(journey.unknown[0].contains("shakes hands"), "{:?}", journey.unknown);
}

#[test]
fn the_longest_allowed_prefix_decides_between_wireguard_peers() {
    let peer = |key: &str, net: &str| WireguardPeer {
        public_key: key.into(),
        preshared: false,
        heard: true,
        endpoint: None,
        allowed: vec![net.parse().unwrap()],
        keepalive: None,
    };
    let peers = vec![peer("wide", "10.0.0.0/8"), peer("narrow", "10.9.0.0/16"), peer("other", "10.8.0.0/16")];
    let device = Wireguard { peers, ..Wireguard::default() };
    let of = |address: &str| device.peer(address.parse().unwrap()).map(|p| p.public_key.as_str());
    assert_eq!((of("10.9.1.1"), of("10.7.1.1"), of("11.0.0.1")), (Some("narrow"), Some("wide"), None));
}
