//! Diagrams: shared nodes, and the operations that everything else is made of.
//!
//! A diagram maps each assignment of bits to a *leaf*, a number below 2³¹; a
//! set is a diagram with the leaves 0 (not in it) and 1. A node tests a run of
//! neighbouring bits of one word against a pattern: if all are as wanted it
//! leads to `then`, else to `els`. A test of a whole address or port is one
//! node, and a prefix too.
//!
//! Equal diagrams are one: a node is made only by [`Store::run`], which joins
//! a test with the one below it whenever both lead to the same `els`, and the
//! result is looked up in a table first. So two diagrams are equal when their
//! references are.
//!
//! Costs: a binary operation on diagrams of n and m nodes takes at most
//! O(n·m) steps, and in practice those parts in which both differ from a
//! constant; each step is a look-up in a bounded cache.

use super::{Error, Header};

/// A reference to a diagram: a leaf, or a node of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(pub(super) u32);

const LEAF: u32 = 1 << 31;

impl Default for Ref {
    fn default() -> Self {
        Ref::NONE
    }
}

impl Ref {
    /// The diagram of a set with nothing in it, and the leaf that means
    /// "nothing said".
    pub const NONE: Ref = Ref(LEAF);
    /// The diagram of everything.
    pub const ALL: Ref = Ref(LEAF | 1);

    /// The diagram that is this leaf everywhere.
    pub const fn leaf(value: u32) -> Ref {
        Ref(LEAF | value)
    }

    /// The leaf's value, if it is one.
    pub const fn value(self) -> Option<u32> {
        if self.0 & LEAF != 0 {
            Some(self.0 & !LEAF)
        } else {
            None
        }
    }

    /// Whether nothing is in it.
    pub fn is_none(self) -> bool {
        self == Ref::NONE
    }
}

/// A node: a test of `len` bits from `position` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The place of the first bit tested; its low five bits count within the
    /// word.
    pub position: u32,
    /// How many bits are tested, from 1 to 32.
    pub len: u32,
    /// What they should be, first bit highest.
    pub pattern: u32,
    pub then: Ref,
    pub els: Ref,
}

/// A node as kept: 16 bytes. `len - 1` lies in the high five bits of `at`.
#[derive(Clone, Copy, Debug)]
struct Packed {
    at: u32,
    pattern: u32,
    then: u32,
    els: u32,
}

const POSITION: u32 = (1 << 27) - 1;

impl Packed {
    fn of(node: Node) -> Self {
        Packed {
            at: node.position | (node.len - 1) << 27,
            pattern: node.pattern,
            then: node.then.0,
            els: node.els.0,
        }
    }

    fn node(self) -> Node {
        Node {
            position: self.at & POSITION,
            len: (self.at >> 27) + 1,
            pattern: self.pattern,
            then: Ref(self.then),
            els: Ref(self.els),
        }
    }

    fn same(&self, other: &Packed) -> bool {
        (self.at, self.pattern, self.then, self.els) == (other.at, other.pattern, other.then, other.els)
    }

    fn hash(&self) -> u64 {
        let a = u64::from(self.at) << 32 | u64::from(self.pattern);
        let b = u64::from(self.then) << 32 | u64::from(self.els);
        mix(a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Spreads every bit of a key over the result.
fn mix(key: u64) -> u64 {
    let product = u128::from(key ^ 0x2d35_8dcc_aa6c_78a5).wrapping_mul(0x8bb8_4b93_962e_acc9_u128);
    (product >> 64) as u64 ^ product as u64
}

/// A place inside a diagram: a node, and how many of its bits are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cursor {
    pub at: Ref,
    pub passed: u32,
}

impl From<Ref> for Cursor {
    fn from(at: Ref) -> Self {
        Cursor { at, passed: 0 }
    }
}

/// What is left to test at a cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    pub position: u32,
    pub len: u32,
    pub pattern: u32,
    pub els: Ref,
}

/// What was asked and came of it: two diagrams, the operation with what is
/// passed of either (0: empty), and the result.
type Cached = [u32; 4];

/// The most nodes below one another that an operation follows.
pub(super) const DEPTH: u32 = 4000;

/// A store of shared nodes.
#[derive(Clone)]
pub struct Store {
    nodes: Vec<Packed>,
    /// Open addressing: indices of nodes plus one, and the high half of their
    /// hashes, so that few nodes but the right one are looked at.
    table: Vec<[u32; 2]>,
    cache: Vec<Cached>,
    budget: usize,
    /// How many nodes were left by the last collection.
    live: usize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store of {} nodes", self.nodes.len())
    }
}

impl Default for Store {
    fn default() -> Self {
        Store::new(Store::BUDGET)
    }
}

impl Store {
    /// How many nodes a store may hold if nothing else is said: 2 GB with
    /// its table.
    pub const BUDGET: usize = 64 << 20;
    /// How many nodes count as made just now, and how many slots of the cache
    /// are kept for them.
    const RECENT: usize = 1 << 10;
    const RECENT_SLOTS: usize = 1 << 11;
    const CACHE_START: usize = 1 << 14;
    const CACHE_MOST: usize = 1 << 21;

    /// A store that holds at most `budget` nodes (16 bytes each, and 12 to 24 for
    /// the table).
    pub fn new(budget: usize) -> Self {
        Store {
            nodes: Vec::new(),
            table: vec![[0; 2]; 1 << 12],
            cache: vec![[0; 4]; Self::CACHE_START],
            budget,
            live: 0,
        }
    }

    /// How many nodes it holds, dead ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it holds no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[inline]
    pub(super) fn node(&self, at: Ref) -> Option<Node> {
        self.nodes.get(at.0 as usize).map(|p| p.node())
    }

    #[inline]
    pub(super) fn test(&self, cursor: Cursor) -> Option<Test> {
        let node = self.node(cursor.at)?;
        let len = node.len - cursor.passed;
        let pattern = if len == 32 { node.pattern } else { node.pattern & ((1 << len) - 1) };
        Some(Test { position: node.position + cursor.passed, len, pattern, els: node.els })
    }

    /// The cursor once `bits` more are as wanted.
    #[inline]
    pub(super) fn pass(&self, cursor: Cursor, bits: u32) -> Cursor {
        match self.node(cursor.at) {
            Some(node) if cursor.passed + bits == node.len => node.then.into(),
            _ => Cursor { at: cursor.at, passed: cursor.passed + bits },
        }
    }

    /// A diagram of its own for a cursor.
    #[inline]
    pub(super) fn settle(&mut self, cursor: Cursor) -> Result<Ref, Error> {
        if cursor.passed == 0 {
            return Ok(cursor.at);
        }
        match (self.test(cursor), self.node(cursor.at)) {
            (Some(test), Some(node)) => self.run(test.position, test.len, test.pattern, node.then, node.els),
            _ => Ok(cursor.at),
        }
    }

    fn intern(&mut self, node: Node) -> Result<Ref, Error> {
        let packed = Packed::of(node);
        let mask = self.table.len() - 1;
        let hash = packed.hash();
        let (mut slot, tag) = (hash as usize & mask, (hash >> 32) as u32);
        loop {
            match self.table[slot] {
                [0, _] => break,
                [index, known] if known == tag && self.nodes[index as usize - 1].same(&packed) => {
                    return Ok(Ref(index - 1));
                }
                _ => slot = (slot + 1) & mask,
            }
        }
        if self.nodes.len() >= self.budget {
            return Err(Error::Budget { nodes: self.budget });
        }
        self.nodes.push(packed);
        let index = self.nodes.len() as u32;
        self.table[slot] = [index, tag];
        if self.nodes.len() * 3 > self.table.len() * 2 {
            self.grow();
        }
        Ok(Ref(index - 1))
    }

    /// Makes room for about so many nodes more, within the budget.
    pub fn reserve(&mut self, nodes: usize) {
        let wanted = self.nodes.len().saturating_add(nodes).min(self.budget);
        self.nodes.reserve(wanted.saturating_sub(self.nodes.len()));
        let slots = (wanted * 3 / 2 + 1).next_power_of_two();
        if slots > self.table.len() {
            self.grow_to(slots);
        }
    }

    fn grow(&mut self) {
        self.grow_to(self.table.len() * 2);
    }

    fn grow_to(&mut self, slots: usize) {
        self.table = vec![[0; 2]; slots];
        self.fill_table();
        let wanted = (self.table.len() / 4).clamp(Self::CACHE_START, Self::CACHE_MOST);
        if wanted > self.cache.len() {
            let old = std::mem::take(&mut self.cache);
            self.cache = vec![[0; 4]; wanted];
            for [a, b, what, result] in old.into_iter().filter(|e| e[2] != 0) {
                let slot = self.cache_slot(a, b, what);
                self.cache[slot] = [a, b, what, result];
            }
        }
    }

    fn fill_table(&mut self) {
        let mask = self.table.len() - 1;
        for (index, packed) in self.nodes.iter().enumerate() {
            let hash = packed.hash();
            let mut slot = hash as usize & mask;
            while self.table[slot][0] != 0 {
                slot = (slot + 1) & mask;
            }
            self.table[slot] = [index as u32 + 1, (hash >> 32) as u32];
        }
    }

    /// The one place where nodes are made: tests `len` bits from `position`
    /// on, all in one word.
    pub(super) fn run(
        &mut self,
        position: u32,
        len: u32,
        pattern: u32,
        then: Ref,
        els: Ref,
    ) -> Result<Ref, Error> {
        let (mut then, mut len, mut pattern) = (then, len, pattern);
        loop {
            if then == els || len == 0 {
                return Ok(then);
            }
            let mut node = self.join(position + len - 1, pattern & 1, then, els);
            if node.len == 1 && node.then == els {
                node = Node { pattern: node.pattern ^ 1, then: node.els, els: node.then, ..node };
            }
            if len == 1 || node.els == els {
                let more = len - 1;
                // Where a test of one bit stays alone, `then` is for 1.
                if more == 0 && node.len == 1 && node.pattern == 0 {
                    node = Node { pattern: 1, then: node.els, els: node.then, ..node };
                }
                let above = if more == 0 { 0 } else { (pattern >> 1) << node.len };
                return self.intern(Node {
                    position: node.position - more,
                    len: node.len + more,
                    pattern: above | node.pattern,
                    ..node
                });
            }
            then = self.intern(node)?;
            len -= 1;
            pattern >>= 1;
        }
    }

    /// A test of one bit, joined with the test below it if that leads to the
    /// same place when it fails.
    fn join(&self, position: u32, bit: u32, then: Ref, els: Ref) -> Node {
        if position & 31 != 31 {
            let below = |child: Ref, other: Ref| {
                let node = self.node(child).filter(|n| n.position == position + 1)?;
                if node.els == other {
                    Some(node)
                } else if node.len == 1 && node.then == other {
                    Some(Node { pattern: node.pattern ^ 1, then: node.els, els: node.then, ..node })
                } else {
                    None
                }
            };
            if let Some(node) = below(then, els) {
                return Node { position, len: node.len + 1, pattern: bit << node.len | node.pattern, ..node };
            }
            if let Some(node) = below(els, then) {
                let pattern = (bit ^ 1) << node.len | node.pattern;
                return Node { position, len: node.len + 1, pattern, ..node };
            }
        }
        match bit {
            0 => Node { position, len: 1, pattern: 1, then: els, els: then },
            _ => Node { position, len: 1, pattern: 1, then, els },
        }
    }

    #[inline]
    fn cache_slot(&self, a: u32, b: u32, what: u32) -> usize {
        let key = u64::from(a) << 32 | u64::from(b);
        let slot = mix(key ^ u64::from(what).wrapping_mul(0xff51_afd7_ed55_8ccd)) as usize;
        // What was made just now is asked about just now, and seldom later: it
        // shares a part that stays in the processor's cache.
        let old = self.nodes.len().saturating_sub(Self::RECENT) as u32;
        let mask = if a >= old && b >= old { Self::RECENT_SLOTS } else { self.cache.len() };
        slot & (mask - 1)
    }

    /// What came of an operation that was asked about two diagrams before, if
    /// that is still known.
    #[inline]
    pub(super) fn recall(&self, a: Cursor, b: Cursor, what: u32) -> Option<Ref> {
        let found = self.cache[self.cache_slot(a.at.0, b.at.0, what)];
        (found[..3] == [a.at.0, b.at.0, what]).then_some(Ref(found[3]))
    }

    /// Remembers what came of an operation.
    #[inline]
    pub(super) fn remember(&mut self, a: Cursor, b: Cursor, what: u32, result: Ref) {
        let slot = self.cache_slot(a.at.0, b.at.0, what);
        self.cache[slot] = [a.at.0, b.at.0, what, result.0];
    }

    /// The leaf for one packet. Conditions that cannot be known count as
    /// false.
    ///
    /// Cost: one step for each node on the way.
    pub fn lookup(&self, root: Ref, header: &Header) -> u32 {
        let mut at = root;
        loop {
            if let Some(value) = at.value() {
                return value;
            }
            let packed = self.nodes[at.0 as usize];
            let position = packed.at & POSITION;
            let len = (packed.at >> 27) + 1;
            let word = header.0.get(position as usize >> 5).copied().unwrap_or(0);
            let shift = 32 - (position & 31) - len;
            let differ = (word >> shift) ^ packed.pattern;
            at = Ref(if differ << (32 - len) == 0 { packed.then } else { packed.els });
        }
    }

    /// Whether it is time for [`Store::collect`]: dead nodes may outweigh the
    /// live ones.
    pub fn is_full_of_dead(&self) -> bool {
        self.nodes.len() > (self.live / 3 * 4).max(1 << 16)
    }

    /// Drops what none of these diagrams uses. Every other reference is
    /// invalid afterwards; these are renamed in place.
    ///
    /// Nodes are laid out in the order of these diagrams, each next to where
    /// its test leads when it holds, so that look-ups in the first ones meet
    /// few lines of memory.
    pub fn collect<'r>(&mut self, roots: impl IntoIterator<Item = &'r mut Ref>) {
        const DEAD: u32 = u32::MAX;
        let mut roots: Vec<&'r mut Ref> = roots.into_iter().collect();
        // A reference that is used has a name; leaves keep theirs.
        let rename = |names: &[u32], r: u32| if r & LEAF != 0 { r } else { names[r as usize] };
        let mut names = vec![DEAD; self.nodes.len()];
        let mut kept: Vec<Packed> = Vec::with_capacity(self.live.max(1024));
        let mut stack: Vec<u32> = Vec::new();
        for root in &roots {
            stack.push(root.0);
            while let Some(at) = stack.last().copied() {
                if at & LEAF != 0 || names[at as usize] != DEAD {
                    stack.pop();
                    continue;
                }
                let packed = self.nodes[at as usize];
                let missing = [packed.els, packed.then].map(|r| r & LEAF == 0 && names[r as usize] == DEAD);
                match missing {
                    [false, false] => {
                        stack.pop();
                        names[at as usize] = kept.len() as u32;
                        let (then, els) = (rename(&names, packed.then), rename(&names, packed.els));
                        kept.push(Packed { then, els, ..packed });
                    }
                    [true, _] => stack.push(packed.els),
                    [false, true] => stack.push(packed.then),
                }
            }
        }
        let lives = |r: u32| r & LEAF != 0 || names[r as usize] != DEAD;
        self.nodes = kept;
        self.live = self.nodes.len();
        for root in &mut roots {
            root.0 = rename(&names, root.0);
        }
        self.table.fill([0; 2]);
        self.fill_table();
        // What is known of live diagrams stays known, so that the next edit
        // is as quick as the last.
        let fresh = vec![[0; 4]; self.cache.len()];
        let old = std::mem::replace(&mut self.cache, fresh);
        for [a, b, what, result] in old {
            if what != 0 && lives(a) && lives(b) && lives(result) {
                let (a, b) = (rename(&names, a), rename(&names, b));
                let slot = self.cache_slot(a, b, what);
                self.cache[slot] = [a, b, what, rename(&names, result)];
            }
        }
    }
}
