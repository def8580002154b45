//! The rules of every device, by prefix.

use super::atoms::Atoms;
use super::ids::NONE;
use super::{Error, Prefix};

/// The rule that is there where there is none: it sends nowhere and yields to
/// any other.
pub(super) const ABSENT: u32 = 0;

#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Of two rules that match an address, the one of higher rank decides.
    rank: u64,
    port: u32,
    /// The rule of the same device and prefix that comes after it.
    below: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Rules {
    devices: usize,
    rules: Vec<Rule>,
    free: Vec<u32>,
    /// For each prefix and device, the rule that decides there.
    heads: Vec<u32>,
    /// For each device, how many prefixes of each length have rules.
    lengths: Vec<[u32; 33]>,
    /// For each device, the lengths whose number is not 0, as bits.
    present: Vec<u64>,
    /// For each device, the rules whose priority is not the prefix's length.
    odd: Vec<u32>,
}

/// By priority, then by length; 0 is left to [`ABSENT`].
fn rank(priority: u32, len: u8) -> u64 {
    (u64::from(priority) << 8) + u64::from(len) + 1
}

impl Rules {
    pub fn new(devices: usize) -> Self {
        Rules {
            devices,
            rules: vec![Rule { rank: 0, port: NONE, below: ABSENT }],
            free: Vec::new(),
            heads: Vec::new(),
            lengths: vec![[0; 33]; devices],
            present: vec![0; devices],
            odd: vec![0; devices],
        }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len() - 1 - self.free.len()
    }

    pub fn rank(&self, rule: u32) -> u64 {
        self.rules[rule as usize].rank
    }

    pub fn port(&self, rule: u32) -> u32 {
        self.rules[rule as usize].port
    }

    /// Whether a longer prefix may yield to a shorter one at the device.
    pub fn odd(&self, device: u32) -> bool {
        self.odd[device as usize] > 0
    }

    /// The lengths of the prefixes that have rules at a device, as bits.
    pub fn lengths(&self, device: u32) -> u64 {
        self.present[device as usize]
    }

    /// The rule that decides for a prefix at a device.
    pub fn head(&self, extent: u32, device: u32) -> u32 {
        let at = extent as usize * self.devices + device as usize;
        self.heads.get(at).copied().unwrap_or(ABSENT)
    }

    /// Adds a rule before its equals.
    pub fn add(&mut self, extent: u32, device: u32, len: u8, priority: u32, port: u32) -> Result<u32, Error> {
        let at = extent as usize * self.devices + device as usize;
        if at >= self.heads.len() {
            self.heads.resize((extent as usize + 1) * self.devices, ABSENT);
        }
        let rank = rank(priority, len);
        let (mut above, mut below) = (ABSENT, self.heads[at]);
        if below == ABSENT {
            self.lengths[device as usize][usize::from(len)] += 1;
            self.present[device as usize] |= 1 << len;
        }
        while below != ABSENT && self.rules[below as usize].rank > rank {
            (above, below) = (below, self.rules[below as usize].below);
        }
        let rule = Rule { rank, port, below };
        let new = match self.free.pop() {
            Some(new) => {
                self.rules[new as usize] = rule;
                new
            }
            None => {
                let new = u32::try_from(self.rules.len()).map_err(|_| Error::Full)?;
                self.rules.push(rule);
                new
            }
        };
        match above {
            ABSENT => self.heads[at] = new,
            above => self.rules[above as usize].below = new,
        }
        self.odd[device as usize] += u32::from(priority != u32::from(len));
        Ok(new)
    }

    /// Takes a rule out, the newest of its equals. Its number stays taken
    /// until [`Rules::give_up`].
    pub fn take(&mut self, extent: u32, device: u32, len: u8, priority: u32, port: u32) -> Option<u32> {
        let at = extent as usize * self.devices + device as usize;
        let rank = rank(priority, len);
        let (mut above, mut rule) = (ABSENT, *self.heads.get(at)?);
        loop {
            if rule == ABSENT {
                return None;
            }
            let it = self.rules[rule as usize];
            if it.rank == rank && it.port == port {
                break;
            }
            (above, rule) = (rule, it.below);
        }
        let below = self.rules[rule as usize].below;
        match above {
            ABSENT => self.heads[at] = below,
            above => self.rules[above as usize].below = below,
        }
        if self.heads[at] == ABSENT {
            let count = &mut self.lengths[device as usize][usize::from(len)];
            *count -= 1;
            if *count == 0 {
                self.present[device as usize] &= !(1 << len);
            }
        }
        self.odd[device as usize] -= u32::from(priority != u32::from(len));
        Some(rule)
    }

    pub fn give_up(&mut self, rule: u32) {
        self.free.push(rule);
    }

    /// The rule that decides for an address at a device, of those no longer
    /// than `len`. Where the longest prefix always wins, it is the first found.
    pub fn best(&self, atoms: &Atoms, device: u32, address: u32, len: u8) -> u32 {
        let odd = self.odd(device);
        let mut left = self.lengths(device) & ((2u64 << len) - 1);
        let mut best = ABSENT;
        while left != 0 {
            let len = 63 - left.leading_zeros() as u8;
            left &= !(1 << len);
            let Some(extent) = atoms.find(Prefix::covering(address, len)) else { continue };
            let head = self.head(extent, device);
            if self.rank(head) > self.rank(best) {
                best = head;
                if !odd {
                    break;
                }
            }
        }
        best
    }
}
