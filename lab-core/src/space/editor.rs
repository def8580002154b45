//! A list of diagrams merged in halves, so that an edit merges one path anew.

use super::{Error, Ref, Store};

/// How two neighbours of the list become one.
pub type Merge<'m> = &'m mut dyn FnMut(&mut Store, Ref, Ref) -> Result<Ref, Error>;

#[derive(Clone, Copy, Debug)]
struct Segment {
    value: Ref,
    /// How many items it spans.
    len: u32,
    /// Its halves; none for an item.
    halves: Option<(u32, u32)>,
}

/// A list of diagrams, and what they are merged into, kept in a balanced tree.
///
/// Building merges n - 1 times; an edit about 1.5·log₂ n times, each along one
/// path of the diagrams if only that path differs.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    segments: Vec<Segment>,
    free: Vec<u32>,
    root: Option<u32>,
}

/// A half may hold this many times what the other does.
const UNEVEN: u32 = 3;

impl Segments {
    /// Merges a list.
    ///
    /// # Errors
    /// As `merge`.
    pub fn build(store: &mut Store, parts: &[Ref], merge: Merge) -> Result<Self, Error> {
        let mut all = Segments::default();
        if !parts.is_empty() {
            all.segments.reserve_exact(2 * parts.len() - 1);
            all.root = Some(all.halve(store, parts, merge)?);
        }
        Ok(all)
    }

    fn halve(&mut self, store: &mut Store, parts: &[Ref], merge: Merge) -> Result<u32, Error> {
        if let [one] = parts {
            return Ok(self.add(Segment { value: *one, len: 1, halves: None }));
        }
        let (a, b) = parts.split_at(parts.len() / 2);
        let a = self.halve(store, a, merge)?;
        let b = self.halve(store, b, merge)?;
        self.join(store, a, b, merge)
    }

    fn add(&mut self, segment: Segment) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.segments[index as usize] = segment;
                index
            }
            None => {
                self.segments.push(segment);
                self.segments.len() as u32 - 1
            }
        }
    }

    fn join(&mut self, store: &mut Store, a: u32, b: u32, merge: Merge) -> Result<u32, Error> {
        let (left, right) = (self.segments[a as usize], self.segments[b as usize]);
        let value = merge(store, left.value, right.value)?;
        Ok(self.add(Segment { value, len: left.len + right.len, halves: Some((a, b)) }))
    }

    fn size(&self, at: u32) -> u32 {
        self.segments[at as usize].len
    }

    /// What the whole list is merged into; nothing for an empty one.
    pub fn value(&self) -> Ref {
        self.root.map_or(Ref::NONE, |root| self.segments[root as usize].value)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.root.map_or(0, |root| self.size(root) as usize)
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Puts an item before the one at `index`, or at the end.
    ///
    /// # Errors
    /// As `merge`; the list must then be dropped.
    pub fn insert(&mut self, store: &mut Store, index: usize, item: Ref, merge: Merge) -> Result<(), Error> {
        let new = self.add(Segment { value: item, len: 1, halves: None });
        self.root = Some(match self.root {
            None => new,
            Some(root) => self.insert_at(store, root, index as u32, new, merge)?,
        });
        Ok(())
    }

    fn insert_at(
        &mut self,
        store: &mut Store,
        at: u32,
        index: u32,
        new: u32,
        merge: Merge,
    ) -> Result<u32, Error> {
        let Some((a, b)) = self.segments[at as usize].halves else {
            return if index == 0 {
                self.join(store, new, at, merge)
            } else {
                self.join(store, at, new, merge)
            };
        };
        self.free.push(at);
        let left = self.size(a);
        if index <= left {
            let a = self.insert_at(store, a, index, new, merge)?;
            self.balanced(store, a, b, merge)
        } else {
            let b = self.insert_at(store, b, index - left, new, merge)?;
            self.balanced(store, a, b, merge)
        }
    }

    /// Puts another item in the place of the one at `index`; nothing happens
    /// past the end.
    ///
    /// # Errors
    /// As `merge`; the list must then be dropped.
    pub fn replace(&mut self, store: &mut Store, index: usize, item: Ref, merge: Merge) -> Result<(), Error> {
        match self.root.filter(|_| index < self.len()) {
            Some(root) => self.replace_at(store, root, index as u32, item, merge),
            None => Ok(()),
        }
    }

    fn replace_at(
        &mut self,
        store: &mut Store,
        at: u32,
        index: u32,
        item: Ref,
        merge: Merge,
    ) -> Result<(), Error> {
        let value = match self.segments[at as usize].halves {
            None => item,
            Some((a, b)) => {
                let left = self.size(a);
                if index < left {
                    self.replace_at(store, a, index, item, merge)?;
                } else {
                    self.replace_at(store, b, index - left, item, merge)?;
                }
                merge(store, self.segments[a as usize].value, self.segments[b as usize].value)?
            }
        };
        self.segments[at as usize].value = value;
        Ok(())
    }

    /// Takes the item at `index` out; nothing happens past the end.
    ///
    /// # Errors
    /// As `merge`; the list must then be dropped.
    pub fn remove(&mut self, store: &mut Store, index: usize, merge: Merge) -> Result<(), Error> {
        if let Some(root) = self.root.filter(|_| index < self.len()) {
            self.root = self.remove_at(store, root, index as u32, merge)?;
        }
        Ok(())
    }

    fn remove_at(
        &mut self,
        store: &mut Store,
        at: u32,
        index: u32,
        merge: Merge,
    ) -> Result<Option<u32>, Error> {
        self.free.push(at);
        let Some((a, b)) = self.segments[at as usize].halves else { return Ok(None) };
        let left = self.size(a);
        let (a, b) = if index < left {
            (self.remove_at(store, a, index, merge)?, Some(b))
        } else {
            (Some(a), self.remove_at(store, b, index - left, merge)?)
        };
        match (a, b) {
            (Some(a), Some(b)) => self.balanced(store, a, b, merge).map(Some),
            (one, other) => Ok(one.or(other)),
        }
    }

    /// Joins two halves, the heavier of which gives some of its own away.
    fn balanced(&mut self, store: &mut Store, a: u32, b: u32, merge: Merge) -> Result<u32, Error> {
        let (left, right) = (self.size(a), self.size(b));
        match (self.segments[a as usize].halves, self.segments[b as usize].halves) {
            (Some((c, d)), _) if left > UNEVEN * right + 1 => {
                self.free.push(a);
                match self.segments[d as usize].halves {
                    Some((e, f)) if self.size(d) > self.size(c) => {
                        self.free.push(d);
                        let a = self.join(store, c, e, merge)?;
                        let b = self.join(store, f, b, merge)?;
                        self.join(store, a, b, merge)
                    }
                    _ => {
                        let b = self.join(store, d, b, merge)?;
                        self.join(store, c, b, merge)
                    }
                }
            }
            (_, Some((c, d))) if right > UNEVEN * left + 1 => {
                self.free.push(b);
                match self.segments[c as usize].halves {
                    Some((e, f)) if self.size(c) > self.size(d) => {
                        self.free.push(c);
                        let a = self.join(store, a, e, merge)?;
                        let b = self.join(store, f, d, merge)?;
                        self.join(store, a, b, merge)
                    }
                    _ => {
                        let a = self.join(store, a, c, merge)?;
                        self.join(store, a, d, merge)
                    }
                }
            }
            _ => self.join(store, a, b, merge),
        }
    }

    /// The items, in order.
    pub fn items(&self) -> Vec<Ref> {
        let mut found = Vec::with_capacity(self.len());
        let mut stack: Vec<u32> = self.root.into_iter().collect();
        while let Some(at) = stack.pop() {
            let segment = self.segments[at as usize];
            match segment.halves {
                Some((a, b)) => stack.extend([b, a]),
                None => found.push(segment.value),
            }
        }
        found
    }

    /// Every diagram held, for [`Store::collect`].
    pub fn roots(&mut self) -> impl Iterator<Item = &mut Ref> {
        // A freed place may hold a reference that is dead.
        for index in &self.free {
            self.segments[*index as usize].value = Ref::NONE;
        }
        self.segments.iter_mut().map(|s| &mut s.value)
    }
}
