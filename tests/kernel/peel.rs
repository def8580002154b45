//! What the packets of tunnels carry.

use lab_core::formats::wire;

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The IP packet in a frame, behind the tags that stand in it.
pub fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    while matches!(number(bytes, at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    matches!(number(bytes, at)?, 0x0800 | 0x86dd).then_some(bytes.get(at + 2..)?)
}

/// The protocol of an IP packet, behind headers that only say how deep packets
/// may be wrapped, and what follows.
pub fn behind(bytes: &[u8]) -> Option<(u8, &[u8])> {
    if bytes.first()? >> 4 == 4 {
        return Some((*bytes.get(9)?, bytes.get(usize::from(bytes[0] & 0xf) * 4..)?));
    }
    let (mut protocol, mut rest) = (*bytes.get(6)?, bytes.get(40..)?);
    while protocol == 60 {
        let length = usize::from(*rest.get(1)?) * 8 + 8;
        (protocol, rest) = (*rest.first()?, rest.get(length..)?);
    }
    Some((protocol, rest))
}

fn gre(bytes: &[u8]) -> Option<&[u8]> {
    let flags = number(bytes, 0)?;
    let options = [0x8000, 0x2000, 0x1000].into_iter().filter(|bit| flags & bit != 0).count();
    let rest = bytes.get(4 + 4 * options..)?;
    match number(bytes, 2)? {
        0x0800 | 0x86dd => Some(rest),
        0x6558 => frame(rest),
        _ => None,
    }
}

/// The IP packet inside of one of a tunnel's; none if it is no such.
pub fn carried(bytes: &[u8]) -> Option<&[u8]> {
    let (protocol, rest) = behind(bytes)?;
    let inner = match protocol {
        4 | 41 => Some(rest),
        47 => gre(rest),
        // VXLAN, whatever its port was rewritten to.
        17 if rest.get(8..12) == Some(&[8, 0, 0, 0]) => frame(rest.get(16..)?),
        _ => None,
    };
    inner.filter(|bytes| wire::packet(bytes).is_some())
}
