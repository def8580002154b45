/// A question cannot be answered as it was put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No host, interface or address has that name.
    #[error("no {what} named `{name}`{}", suggest(.nearest))]
    Unknown {
        /// What sort of thing was meant.
        what: &'static str,
        /// The name given.
        name: String,
        /// The nearest right names, best first.
        nearest: Vec<String>,
    },
    /// The end exists, but cannot serve.
    #[error("{0}")]
    Unfit(String),
    /// The same packets are asked both to pass and to be refused.
    #[error("`{pass}` should pass and `{refuse}` should not, and these are both: {packets}")]
    Contradiction {
        /// The flows that should pass.
        pass: String,
        /// The flows that should not.
        refuse: String,
        /// The packets in both.
        packets: String,
    },
    /// The packet sets needed for the answer outgrew their bounds.
    #[error(transparent)]
    Space(#[from] crate::space::Error),
}

fn suggest(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}
