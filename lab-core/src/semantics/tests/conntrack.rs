//! What packets are to connections (`nf_conntrack_core.c`, `nf_conntrack_proto_*.c`).

use crate::addr::PortRange;
use crate::engine::stepper::tests::build::{ping, tcp, udp};
use crate::model::{ConntrackState, Direction, Host, Packet, Payload, PortValue, TcpFlags, Transport};
use crate::semantics::conntrack::{
    may_clash, sane, tcp_step, zones, Connection, Connections, Found, Info, TcpState, TcpStep, Tuple,
};

const STATES: [TcpState; 10] = [
    TcpState::None,
    TcpState::SynSent,
    TcpState::SynRecv,
    TcpState::Established,
    TcpState::FinWait,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::TimeWait,
    TcpState::Close,
    TcpState::SynSent2,
];

/// The names that `tcp_conntracks` has for states.
const NAMES: &str = "NO SS SR ES FW CW LA TW CL S2";

#[test]
fn tcp_goes_from_state_to_state_as_the_kernels_table_says() {
    let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
    for (direction, flags, row) in [
        (Direction::Original, syn, "SS SS IG IG IG IG IG SS SS S2"),
        (Direction::Original, syn | ack, "IV IV SR IV IV IV IV IV IV SR"),
        (Direction::Original, fin | ack, "IV IV FW FW LA LA LA TW CL IV"),
        (Direction::Original, ack, "ES IV ES ES CW CW TW TW CL IV"),
        (Direction::Original, rst, "IV CL CL CL CL CL CL CL CL CL"),
        (Direction::Original, 0, "IV IV IV IV IV IV IV IV IV IV"),
        (Direction::Reply, syn, "IV S2 IV IV IV IV IV SS IV S2"),
        (Direction::Reply, syn | ack, "IV SR IG IG IG IG IG IG IG SR"),
        (Direction::Reply, fin | ack, "IV IV FW FW LA LA LA TW CL IV"),
        (Direction::Reply, ack, "IV IG SR ES CW CW TW TW CL IG"),
        (Direction::Reply, rst | ack, "IV CL CL CL CL CL CL CL CL CL"),
        (Direction::Reply, 0, "IV IV IV IV IV IV IV IV IV IV"),
    ] {
        for (state, to) in STATES.into_iter().zip(row.split(' ')) {
            let expected = match to {
                "IV" => TcpStep::Invalid,
                "IG" => TcpStep::Ignore,
                to => TcpStep::To(STATES[NAMES.split(' ').position(|name| name == to).unwrap()]),
            };
            assert_eq!(tcp_step(state, flags, direction), expected, "{direction:?} {flags:#x} {state:?}");
        }
    }
}

#[test]
fn flags_that_no_sane_tcp_sends_belong_to_no_connection() {
    let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
    let (urg, psh) = (TcpFlags::URG, TcpFlags::PSH);
    for flags in [
        syn,
        syn | urg,
        syn | ack,
        rst,
        rst | ack,
        fin | ack,
        fin | ack | urg,
        ack,
        ack | urg,
        ack | psh,
        syn | psh,
        0xc2,
    ] {
        assert!(sane(flags), "{flags:#x}");
    }
    for flags in [0, psh, urg, fin, syn | fin, syn | rst, rst | fin, rst | urg, syn | ack | urg, fin | urg] {
        assert!(!sane(flags), "{flags:#x}");
        let packet = tcp(("10.0.0.1", 1), ("10.0.0.2", 2), flags);
        let found = Connections::default().track(&Host::default(), &packet, (0, 0));
        assert_eq!(found, Found::None(Info::Invalid), "{flags:#x}");
    }
}

/// The states that packets have one after the other, each confirmed.
fn states(host: &Host, packets: &[Packet]) -> Vec<ConntrackState> {
    let mut known = Connections::default();
    packets
        .iter()
        .map(|packet| match known.track(host, packet, (0, 0)) {
            Found::Existing(_, info) | Found::None(info) => info.state(),
            Found::Opens(connection) => {
                known.0.push(Connection { confirmed: true, ..*connection });
                ConntrackState::New
            }
        })
        .collect()
}

use ConntrackState::{Established, Invalid, New, Related, Untracked};

#[test]
fn what_opens_a_connection_and_what_belongs_to_it() {
    let icmp = |kind| Packet {
        transport: Transport::Icmp { kind, code: 0, id: PortValue::Is(7) },
        ..ping("10.0.0.1", "10.0.0.2")
    };
    let back = |packet: Packet| Packet { src: packet.dst, dst: packet.src, ..packet };
    let icmp6 = |kind| Packet {
        transport: Transport::Icmp6 { kind, code: 0, id: PortValue::Is(7) },
        ..ping("fd00::1", "fd00::2")
    };
    let host = Host::default();
    for (query, reply) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
        assert_eq!(
            states(&host, &[icmp(query), back(icmp(reply)), icmp(query)]),
            [New, Established, Established]
        );
        assert_eq!(states(&host, &[icmp(reply)]), [Invalid], "{reply}");
        assert_eq!(states(&host, &[icmp(query), icmp(reply)]), [New, Invalid], "{reply} the same way");
    }
    for (query, reply) in [(128, 129), (139, 140)] {
        assert_eq!(states(&host, &[icmp6(query), back(icmp6(reply))]), [New, Established]);
        assert_eq!(states(&host, &[icmp6(reply)]), [Invalid], "{reply}");
    }
    for kind in [130, 133, 135, 136, 137, 143] {
        assert_eq!(states(&host, &[icmp6(kind)]), [Untracked], "{kind}");
    }
    for kind in [144, 200] {
        assert_eq!(states(&host, &[icmp6(kind)]), [Invalid], "{kind}");
    }
    assert_eq!(states(&host, &[icmp(9)]), [Invalid]);
    let (there, other) = (udp(("10.0.0.1", 1), ("10.0.0.2", 2)), udp(("10.0.0.1", 1), ("10.0.0.2", 3)));
    let reply = udp(("10.0.0.2", 2), ("10.0.0.1", 1));
    assert_eq!(
        states(&host, &[there.clone(), there.clone(), reply, there, other]),
        [New, New, Established, Established, New]
    );
    let sctp = |init| Packet {
        transport: Transport::Sctp { sport: PortValue::Is(1), dport: PortValue::Is(2), init },
        ..udp(("10.0.0.1", 1), ("10.0.0.2", 2))
    };
    assert_eq!(states(&host, &[sctp(false)]), [Invalid]);
    assert_eq!(states(&host, &[sctp(true), sctp(false)]), [New, New]);
    let other =
        |number| Packet { transport: Transport::Other(number), ..udp(("10.0.0.1", 1), ("10.0.0.2", 2)) };
    assert_eq!(states(&host, &[other(50), back(other(50)), other(51)]), [New, Established, New]);
}

#[test]
fn a_connection_of_tcp_picked_up_in_the_middle_is_new_if_that_is_allowed() {
    let packet = |flags| tcp(("10.0.0.1", 1), ("10.0.0.2", 2), flags);
    let mut host = Host::default();
    for (flags, state) in [
        (TcpFlags::SYN, New),
        (TcpFlags::ACK, New),
        (TcpFlags::RST, Invalid),
        (TcpFlags::SYN | TcpFlags::ACK, Invalid),
    ] {
        assert_eq!(states(&host, &[packet(flags)]), [state], "{flags:#x}");
    }
    host.sysctls.0.insert("net.netfilter.nf_conntrack_tcp_loose".into(), "0".into());
    assert_eq!(states(&host, &[packet(TcpFlags::ACK)]), [Invalid]);
    assert_eq!(states(&host, &[packet(TcpFlags::SYN)]), [New]);
    host.sysctls.0.insert("net.netfilter.nf_conntrack_tcp_loose".into(), "1".into());
    assert_eq!(states(&host, &[packet(TcpFlags::ACK)]), [New]);
}

#[test]
fn an_error_is_related_to_the_connection_that_it_quotes_a_packet_of() {
    let host = Host::default();
    let there = udp(("10.0.0.1", 1), ("10.0.0.2", 2));
    let reply = udp(("10.0.0.2", 2), ("10.0.0.1", 1));
    let error = |about: &Packet, to: &str| Packet {
        transport: Transport::Icmp { kind: 3, code: 3, id: PortValue::Is(0) },
        payload: Payload::Quoted(Box::new(about.clone())),
        ..ping("10.0.0.9", to)
    };
    assert_eq!(states(&host, &[there.clone(), error(&there, "10.0.0.1")]), [New, Related]);
    assert_eq!(
        states(&host, &[there.clone(), reply.clone(), error(&reply, "10.0.0.2")]),
        [New, Established, Related]
    );
    assert_eq!(
        states(&host, &[there.clone(), error(&there, "10.0.0.2")]),
        [New, Invalid],
        "to the wrong end"
    );
    assert_eq!(states(&host, &[error(&there, "10.0.0.1")]), [Invalid], "of nothing known");
    // The direction is that of the packet that the error goes back along.
    let mut known = Connections::default();
    let Found::Opens(connection) = known.track(&host, &there, (0, 0)) else { panic!("it opens one") };
    known.0.push(Connection { confirmed: true, ..*connection });
    assert_eq!(
        known.track(&host, &error(&there, "10.0.0.1"), (0, 0)),
        Found::Existing(0, Info::RelatedReply)
    );
    assert_eq!(known.track(&host, &error(&reply, "10.0.0.2"), (0, 0)), Found::Existing(0, Info::Related));
    for (info, direction, of_answer) in [
        (Info::New, Direction::Original, Info::RelatedReply),
        (Info::Established, Direction::Original, Info::RelatedReply),
        (Info::EstablishedReply, Direction::Reply, Info::Related),
        (Info::RelatedReply, Direction::Reply, Info::Related),
        (Info::Related, Direction::Original, Info::RelatedReply),
    ] {
        assert_eq!((info.direction(), info.of_answer()), (direction, of_answer), "{info:?}");
    }
}

#[test]
fn each_direction_is_looked_up_in_its_own_zone() {
    let host = Host::default();
    let there = udp(("10.0.0.1", 1), ("10.0.0.2", 2));
    let reply = udp(("10.0.0.2", 2), ("10.0.0.1", 1));
    let mut known = Connections::default();
    let Found::Opens(connection) = known.track(&host, &there, (5, 6)) else { panic!("it opens one") };
    assert_eq!((connection.original_zone, connection.reply_zone), (5, 6));
    known.0.push(Connection { confirmed: true, ..*connection });
    let found = |packet: &Packet, zones| {
        known.find(&Tuple::of(packet).unwrap(), zones).map(|(_, direction)| direction)
    };
    assert_eq!(found(&there, (5, 0)), Some(Direction::Original));
    assert_eq!(found(&there, (6, 5)), None);
    assert_eq!(found(&reply, (0, 6)), Some(Direction::Reply));
    assert_eq!(found(&reply, (6, 5)), None);
    assert_eq!(
        (zones(7, None), zones(7, Some(Direction::Original)), zones(7, Some(Direction::Reply))),
        ((7, 7), (7, 0), (0, 7))
    );
    for (new, old, open) in
        [((0, 0), (0, 0), false), ((1, 1), (2, 2), false), ((1, 0), (0, 0), true), ((0, 0), (0, 1), true)]
    {
        assert_eq!(may_clash(new, [old].into_iter()), open, "{new:?} {old:?}");
    }
    assert!(!may_clash((1, 0), std::iter::empty()));
}

#[test]
fn a_tcp_connection_is_kept_once_both_sides_spoke_and_dies_of_an_early_reset() {
    let host = Host::default();
    let there = |flags| tcp(("10.0.0.1", 1), ("10.0.0.2", 2), flags);
    let back = |flags| tcp(("10.0.0.2", 2), ("10.0.0.1", 1), flags);
    let (syn, ack, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST);
    let after = |packets: &[Packet]| {
        let mut known = Connections::default();
        for packet in packets {
            if let Found::Opens(connection) = known.track(&host, packet, (0, 0)) {
                known.0.push(Connection { confirmed: true, ..*connection });
            }
        }
        known.0.remove(0)
    };
    let open = after(&[there(syn), back(syn | ack), there(ack)]);
    assert!(open.assured && open.seen_reply && !open.dead);
    assert_eq!(open.tcp, TcpState::Established);
    let half = after(&[there(syn), back(syn | ack)]);
    assert!(!half.assured && half.seen_reply);
    let early = after(&[there(syn), there(rst)]);
    assert!(early.dead && early.reset_by == Some(Direction::Original));
    let late = after(&[there(syn), back(syn | ack), there(ack), back(rst)]);
    assert!(!late.dead && late.reset_by == Some(Direction::Reply) && late.tcp == TcpState::Close);
}

#[test]
fn a_syn_opens_anew_what_both_sides_closed_or_its_own_side_reset() {
    let host = Host::default();
    let there = |flags| tcp(("10.0.0.1", 1), ("10.0.0.2", 2), flags);
    let back = |flags| tcp(("10.0.0.2", 2), ("10.0.0.1", 1), flags);
    let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
    let open = [there(syn), back(syn | ack), there(ack)];
    for (then, state) in [
        (vec![], Established),
        (vec![there(fin | ack), back(ack)], Established),
        (vec![there(fin | ack), back(fin | ack), there(ack)], New),
        (vec![there(rst)], New),
        (vec![back(rst)], Established),
    ] {
        let packets = [&open[..], &then, &[there(syn)]].concat();
        assert_eq!(states(&host, &packets).pop(), Some(state), "{then:?}");
        // With more than SYN nothing is opened.
        let packets = [&open[..], &then, &[there(syn | ack)]].concat();
        assert_ne!(states(&host, &packets).pop(), Some(New), "{then:?}");
    }
}

#[test]
fn a_packet_is_by_chance_one_of_a_connection_whose_port_was_picked_in_its_zone() {
    let host = Host::default();
    let there = udp(("10.0.0.1", 1), ("10.0.0.2", 2));
    let mut known = Connections::default();
    let Found::Opens(connection) = known.track(&host, &there, (5, 6)) else { panic!("it opens one") };
    let range = PortRange { low: 100, high: 200 };
    let mut connection = Connection { confirmed: true, ..*connection };
    connection.reply.dport = PortValue::Fresh(range);
    known.0.push(connection);
    let reply = |port| udp(("10.0.0.2", 2), ("10.0.0.1", port));
    for (packet, zones, meets) in [
        (reply(100), (0, 6), true),
        (reply(200), (5, 6), true),
        (reply(100), (6, 5), false),
        (reply(100), (5, 0), false),
        (reply(99), (5, 6), false),
        (there.clone(), (5, 6), false),
    ] {
        assert_eq!(!known.by_chance(&packet, zones).is_empty(), meets, "{packet} {zones:?}");
    }
    let mut other = known.clone();
    other.0[0].original.sport = PortValue::Fresh(range);
    let sent = |port| udp(("10.0.0.1", port), ("10.0.0.2", 2));
    for (packet, zones, meets) in
        [(sent(150), (5, 0), true), (sent(150), (6, 5), false), (sent(201), (5, 6), false)]
    {
        assert_eq!(!other.by_chance(&packet, zones).is_empty(), meets, "{packet} {zones:?}");
    }
    for change in [|c: &mut Connection| c.dead = true, |c: &mut Connection| c.confirmed = false] {
        let mut gone = known.clone();
        change(&mut gone.0[0]);
        assert!(gone.by_chance(&reply(100), (5, 6)).is_empty());
    }
}

#[test]
fn only_a_plain_syn_ends_what_was_reset() {
    let host = Host::default();
    let there = |flags| tcp(("10.0.0.1", 1), ("10.0.0.2", 2), flags);
    let back = |flags| tcp(("10.0.0.2", 2), ("10.0.0.1", 1), flags);
    let (syn, ack, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST);
    for (flags, state) in [(syn | ack, Invalid), (syn, New)] {
        let packets = [there(syn), back(syn | ack), there(ack), there(rst), there(flags), back(ack)];
        // Either way there is a connection for what comes back.
        assert_eq!(states(&host, &packets)[4..], [state, Established], "{flags:#x}");
    }
}
