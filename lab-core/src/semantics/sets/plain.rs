//! Matches that are conjunctions of bits.

use std::net::IpAddr;

use super::Sets;
use crate::addr::{Family, Masked, PortRange};
use crate::model::{InterfacePattern, Match, Not};
use crate::space::{Bits, Cube, Field, NotAdded};

/// A match on fields that no rule changes, as one conjunction.
#[derive(Clone, Copy, Debug)]
pub enum Plain {
    /// It holds in this cube.
    Is(Cube),
    /// It holds outside of it.
    IsNot(Cube),
}

impl Sets {
    /// The cube of a match that is one, or the negation of one; all other
    /// matches are left to [`Sets::condition`].
    pub fn plain(&mut self, condition: &Match) -> Option<Plain> {
        let mut cube = Cube::default();
        let inverted = match condition {
            Match::Source(net) => address(&mut cube, Field::Src, net).ok()?,
            Match::Destination(net) => address(&mut cube, Field::Dst, net).ok()?,
            Match::InInterface(pattern) => self.interface_cube(&mut cube, Field::Iif, pattern)?,
            Match::OutInterface(pattern) => self.interface_cube(&mut cube, Field::Oif, pattern)?,
            Match::Protocol(Not { value: 0, invert: false }) => false,
            Match::Protocol(Not { value: 0, invert: true }) => return None,
            Match::Protocol(number) => {
                protocol(&mut cube, number.value).ok()?;
                number.invert
            }
            Match::Tcp { sport, dport, flags: None, option: None } => {
                ports(&mut cube, 6, *sport, *dport).ok()?;
                false
            }
            Match::Udp { sport, dport } => {
                ports(&mut cube, 17, *sport, *dport).ok()?;
                false
            }
            Match::Sctp { sport, dport, chunks: None } => {
                ports(&mut cube, 132, *sport, *dport).ok()?;
                false
            }
            Match::Comment(_) => false,
            _ => return None,
        };
        Some(if inverted { Plain::IsNot(cube) } else { Plain::Is(cube) })
    }

    fn interface_cube(
        &mut self,
        cube: &mut Cube,
        field: Field,
        pattern: &Not<InterfacePattern>,
    ) -> Option<bool> {
        if pattern.value.prefix {
            return None;
        }
        let number = self.names.number(&pattern.value.name);
        cube.add(field, Bits { mask: u32::MAX.into(), value: number.into() }).ok()?;
        Some(pattern.invert)
    }
}

fn protocol(cube: &mut Cube, number: u8) -> Result<(), NotAdded> {
    cube.add(Field::Protocol, Bits { mask: 0xff, value: number.into() })
}

/// An address under a mask, of the mask's family.
fn address(cube: &mut Cube, field: Field, net: &Not<Masked>) -> Result<bool, NotAdded> {
    let (mask, value) = match (net.value.mask, net.value.address) {
        (IpAddr::V4(m), IpAddr::V4(a)) => (u128::from(m.to_bits()) << 96, u128::from(a.to_bits()) << 96),
        (IpAddr::V6(m), IpAddr::V6(a)) => (m.to_bits(), a.to_bits()),
        _ => return Err(NotAdded::Never),
    };
    // A value outside its mask is never met.
    if value & !mask != 0 {
        return Err(NotAdded::Never);
    }
    let v6 = Family::of(net.value.address) == Family::Ipv6;
    cube.add(Field::Family, Bits { mask: 1, value: v6.into() })?;
    cube.add(field, Bits { mask, value })?;
    Ok(net.invert)
}

/// A protocol, with single ports or any.
fn ports(
    cube: &mut Cube,
    number: u8,
    sport: Option<Not<PortRange>>,
    dport: Option<Not<PortRange>>,
) -> Result<(), NotAdded> {
    protocol(cube, number)?;
    for (field, range) in [(Field::Dport, dport), (Field::Sport, sport)] {
        match range {
            None => {}
            Some(Not { value: PortRange { low, high }, invert: false }) if low == high => {
                cube.add(field, Bits { mask: 0xffff, value: low.into() })?;
            }
            Some(_) => return Err(NotAdded::Full),
        }
    }
    Ok(())
}
