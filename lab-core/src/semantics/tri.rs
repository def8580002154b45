//! Three-valued truth.

/// Whether something holds for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tri {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It depends on what is not known, or not modelled: the reason.
    Unknown(String),
}

impl Tri {
    /// The result turned round; the unknown stays unknown.
    #[must_use]
    pub fn inverted(self, invert: bool) -> Self {
        match (self, invert) {
            (Tri::Yes, true) => Tri::No,
            (Tri::No, true) => Tri::Yes,
            (other, _) => other,
        }
    }

    /// Both: false as soon as one is false.
    #[must_use]
    pub fn and(self, other: impl FnOnce() -> Tri) -> Self {
        match self {
            Tri::No => Tri::No,
            Tri::Yes => other(),
            Tri::Unknown(why) => match other() {
                Tri::No => Tri::No,
                _ => Tri::Unknown(why),
            },
        }
    }

    /// Either: true as soon as one is true.
    #[must_use]
    pub fn or(self, other: impl FnOnce() -> Tri) -> Self {
        match self {
            Tri::Yes => Tri::Yes,
            Tri::No => other(),
            Tri::Unknown(why) => match other() {
                Tri::Yes => Tri::Yes,
                _ => Tri::Unknown(why),
            },
        }
    }
}

impl From<bool> for Tri {
    fn from(truth: bool) -> Self {
        if truth {
            Tri::Yes
        } else {
            Tri::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tri;

    #[test]
    fn what_is_false_anyway_is_not_unknown() {
        let unknown = || Tri::Unknown("chance".into());
        assert_eq!(unknown().and(|| Tri::No), Tri::No);
        assert_eq!(Tri::No.and(unknown), Tri::No);
        assert_eq!(unknown().or(|| Tri::Yes), Tri::Yes);
        assert_eq!(unknown().inverted(true), unknown());
    }
}
