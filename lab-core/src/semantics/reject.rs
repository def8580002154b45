//! What a REJECT answers (`ipt_REJECT.c`, `ip6t_REJECT.c`, `nft_reject_inet.c`).

use crate::addr::Family;
use crate::model::{AnswerKind, Packet, RejectWith, TcpFlags, Transport};

/// The answer a REJECT gives to a packet; none: it drops in silence (a reset
/// answers no reset, and nothing but TCP).
pub fn answer(with: RejectWith, packet: &Packet) -> Option<AnswerKind> {
    let family = packet.family();
    match with {
        RejectWith::Icmp(code) => Some(AnswerKind::Icmp(3, code)),
        RejectWith::Icmp6(code) => Some(AnswerKind::Icmp6(1, code)),
        RejectWith::Icmpx(code) => Some(match family {
            // nft_reject_icmp_code and nft_reject_icmpv6_code.
            Family::Ipv4 => AnswerKind::Icmp(3, [0, 3, 1, 13].get(usize::from(code)).copied().unwrap_or(3)),
            Family::Ipv6 => AnswerKind::Icmp6(1, [0, 4, 3, 1].get(usize::from(code)).copied().unwrap_or(4)),
        }),
        RejectWith::TcpReset => match packet.transport {
            Transport::Tcp { flags, .. } if !flags.has(TcpFlags::RST) => Some(AnswerKind::TcpReset),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Payload, PortValue};

    fn tcp(flags: u8) -> Packet {
        Packet {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            ttl: 64,
            tos: 0,
            length: 40,
            df: true,
            fragment: None,
            mark: 0,
            transport: Transport::Tcp {
                sport: PortValue::Is(1),
                dport: PortValue::Is(2),
                flags: TcpFlags(flags),
            },
            payload: Payload::Data,
        }
    }

    #[test]
    fn a_reset_is_never_answered_by_a_reset() {
        assert_eq!(answer(RejectWith::TcpReset, &tcp(TcpFlags::RST)), None);
        assert_eq!(answer(RejectWith::TcpReset, &tcp(TcpFlags::SYN)), Some(AnswerKind::TcpReset));
    }

    #[test]
    fn icmpx_names_the_error_of_the_family() {
        assert_eq!(answer(RejectWith::Icmpx(1), &tcp(TcpFlags::SYN)), Some(AnswerKind::Icmp(3, 3)));
        assert_eq!(answer(RejectWith::Icmpx(3), &tcp(TcpFlags::SYN)), Some(AnswerKind::Icmp(3, 13)));
    }
}
