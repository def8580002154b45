//! Every way a run can go, where chance or ignorance decides.

/// The choices of one run: a script to follow, then always the first way.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    script: Vec<(usize, usize)>,
    position: usize,
    reasons: Vec<String>,
}

impl Choices {
    /// Picks one of `ways` (at least 1), from 0; `why` says what decides.
    pub fn pick(&mut self, ways: usize, why: &str) -> usize {
        if ways <= 1 {
            return 0;
        }
        if !self.reasons.iter().any(|r| r == why) {
            self.reasons.push(why.to_owned());
        }
        if self.position == self.script.len() {
            self.script.push((0, ways));
        }
        let (way, _) = self.script[self.position];
        self.position += 1;
        way
    }

    /// What decided in this run.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// The script of the next run, if there is one.
    fn next(mut self) -> Option<Self> {
        self.script.truncate(self.position);
        while let Some((way, ways)) = self.script.pop() {
            if way + 1 < ways {
                self.script.push((way + 1, ways));
                return Some(Choices { script: self.script, position: 0, reasons: Vec::new() });
            }
        }
        None
    }
}

/// Every result of a run that makes choices.
#[derive(Clone, Debug)]
pub struct Explored<T> {
    /// One result for each way, in the order of the choices.
    pub results: Vec<T>,
    /// What decides between them.
    pub reasons: Vec<String>,
    /// Whether there were more ways than were tried.
    pub cut: bool,
}

/// Runs `run` for every way its choices can go, `limit` times at most.
///
/// ```
/// use lab_core::engine::explore::all;
/// let explored = all(16, |choices| (choices.pick(2, "a coin"), choices.pick(3, "a die")));
/// assert_eq!(explored.results.len(), 6);
/// assert!(!explored.cut);
/// ```
pub fn all<T>(limit: usize, mut run: impl FnMut(&mut Choices) -> T) -> Explored<T> {
    let mut explored = Explored { results: Vec::new(), reasons: Vec::new(), cut: false };
    let mut choices = Choices::default();
    loop {
        explored.results.push(run(&mut choices));
        for reason in choices.reasons() {
            if !explored.reasons.contains(reason) {
                explored.reasons.push(reason.clone());
            }
        }
        match choices.next() {
            None => return explored,
            Some(_) if explored.results.len() >= limit => {
                explored.cut = true;
                return explored;
            }
            Some(next) => choices = next,
        }
    }
}
