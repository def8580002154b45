use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use foldhash::HashMap;

use super::super::ErrorKind;
use super::lexer::{written, Word};
use super::options::{self, BuiltIn, Spec, BUILT_IN};
use super::{names, values};
use crate::addr::{Family, Masked};
use crate::model::{InterfacePattern, Not};

/// Where the chains of a table stand, by name.
pub(super) type Chains<'a> = HashMap<Cow<'a, str>, usize>;

fn syntax<T>(message: impl Into<String>) -> Result<T, ErrorKind> {
    Err(ErrorKind::Syntax(message.into()))
}

/// The most arguments that an option takes.
const ARGUMENTS: usize = 2;

/// An option of an extension, as given; or words that an extension takes in
/// without knowing what they mean.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    /// The extension, by its place in the line.
    extension: usize,
    /// What it means; empty for words that are just taken in.
    pub name: &'static str,
    pub invert: bool,
    /// Its arguments, the rest empty.
    pub args: [&'a str; ARGUMENTS],
    words: Range<usize>,
}

/// A match or target of a rule.
#[derive(Clone, Debug)]
pub(super) struct Extension<'a> {
    /// Its name, an alias resolved.
    pub name: &'a str,
    /// Whether it is a target.
    pub target: bool,
    /// The chain of that name, if it is a target and there is one.
    pub chain: Option<usize>,
    /// Whether a protocol brought it in without `-m`.
    implied: bool,
    /// The options it may have; none: they are not known, and all that
    /// follows is kept as written.
    specs: Option<&'static [Spec]>,
    /// The words that name it.
    head: Range<usize>,
}

impl Extension<'_> {
    /// Whether all of its options are known.
    pub fn known(&self) -> bool {
        self.specs.is_some()
    }

    /// Whether it is a chain or a plain verdict, which have no options.
    fn is_verdict(&self) -> bool {
        self.target && (self.chain.is_some() || matches!(self.name, "ACCEPT" | "DROP" | "RETURN"))
    }
}

/// Addresses that a rule is for: at least one.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub invert: bool,
    first: Masked,
    more: Vec<Masked>,
}

impl Addresses {
    pub fn iter(&self) -> impl Iterator<Item = Masked> + '_ {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

/// A rule as its options say, before extensions are understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Line<'a> {
    pub source: Option<Addresses>,
    pub destination: Option<Addresses>,
    pub input: Option<Not<InterfacePattern>>,
    pub output: Option<Not<InterfacePattern>>,
    pub protocol: Option<Not<u8>>,
    pub fragment: Option<Not<()>>,
    pub counters: Option<(u64, u64)>,
    /// The matches, in order, and the target where it was written.
    pub extensions: Vec<Extension<'a>>,
    /// The options of them all, in order.
    options: Vec<Given<'a>>,
    /// The chain of `-g`.
    pub goto: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// How many statements a rule of it has.
    pub fn statements(&self) -> usize {
        let own = [
            self.source.is_some(),
            self.destination.is_some(),
            self.input.is_some(),
            self.output.is_some(),
            self.protocol.is_some(),
            self.fragment.is_some(),
            self.goto.is_some(),
        ];
        own.into_iter().filter(|given| *given).count() + self.extensions.len()
    }

    /// The options of an extension.
    pub fn options(&self, extension: usize) -> impl Iterator<Item = &Given<'a>> {
        self.options.iter().filter(move |o| o.extension == extension)
    }

    /// The options of an extension as written.
    pub fn arguments(&self, extension: usize, line: &str, words: &[Word]) -> String {
        written(line, words, self.options(extension).flat_map(|o| o.words.clone()))
    }

    /// All of an extension as written, for a target without the `-j`.
    pub fn text(&self, extension: usize, line: &str, words: &[Word]) -> String {
        let Some(of) = self.extensions.get(extension) else { return String::new() };
        let own = self.options(extension).flat_map(|o| o.words.clone());
        let text = written(line, words, of.head.clone().chain(own));
        if of.implied {
            format!("-m {} {text}", of.name)
        } else if of.head.is_empty() {
            format!("{} {text}", of.name).trim_end().to_owned()
        } else {
            text
        }
    }
}

/// What an option's name leads to.
enum Found {
    BuiltIn(BuiltIn),
    Option(usize, &'static Spec),
    Unknown,
}

/// Reads a rule's words from left to right, as getopt and iptables'
/// `do_command` do.
pub(super) struct Reader<'a> {
    words: &'a [Word<'a>],
    family: Family,
    chains: &'a Chains<'a>,
    at: usize,
    line: Line<'a>,
    /// The extension that takes in whatever comes, as its options are unknown.
    absorbing: Option<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(words: &'a [Word], start: usize, family: Family, chains: &'a Chains<'a>) -> Self {
        let (extensions, options) = (Vec::with_capacity(4), Vec::with_capacity(4));
        let line = Line { extensions, options, ..Line::default() };
        Reader { words, family, chains, at: start, line, absorbing: None }
    }

    pub fn read(mut self) -> Result<Line<'a>, ErrorKind> {
        while let Some(first) = self.words.get(self.at) {
            let start = self.at;
            let invert = first.is_bang();
            let option = if invert { self.words.get(start + 1) } else { Some(first) };
            if let Some(extension) = self.absorbing {
                if !option.is_some_and(|o| !o.quoted && BuiltIn::exact(&o.text).is_some()) {
                    // One word only: a `!` may stand before another `!`.
                    self.absorb(extension, start..start + 1);
                    self.at = start + 1;
                    continue;
                }
            }
            let Some(option) = option else {
                return syntax("`!` at the end of the rule");
            };
            if option.is_bang() {
                return syntax("`!` is given twice");
            }
            self.at = start + usize::from(invert) + 1;
            self.option(start, option, invert)?;
        }
        Ok(self.line)
    }

    fn absorb(&mut self, extension: usize, words: Range<usize>) {
        self.line.options.push(Given { extension, name: "", invert: false, args: Default::default(), words });
    }

    fn option(&mut self, start: usize, word: &'a Word, invert: bool) -> Result<(), ErrorKind> {
        let text = word.text.as_ref();
        if !text.starts_with('-') || text.len() < 2 {
            return syntax(format!("unexpected argument `{text}`"));
        }
        let (name, attached) = split_option(text);
        match self.find(name) {
            Found::BuiltIn(option) => {
                self.absorbing = None;
                self.built_in(option, name, attached, invert)
            }
            Found::Option(index, spec) => self.known(start, index, spec, attached, invert),
            Found::Unknown => self.unknown(start, name),
        }
    }

    /// An option of an extension whose options are known.
    fn known(
        &mut self,
        start: usize,
        index: usize,
        spec: &Spec,
        attached: Option<&'a str>,
        mut invert: bool,
    ) -> Result<(), ErrorKind> {
        let mut args = [""; ARGUMENTS];
        let mut wanted = args.iter_mut().take(spec.arity);
        match (attached, wanted.next()) {
            (Some(_), None) => return syntax(format!("--{} takes no argument", spec.name)),
            (Some(value), Some(first)) => *first = value,
            (None, Some(first)) => {
                self.old_negation(&mut invert)?;
                *first = self.argument(format_args!("--{}", spec.name))?;
            }
            (None, None) => {}
        }
        for other in wanted {
            *other = self.argument(format_args!("--{}", spec.name))?;
        }
        if invert && !spec.invert {
            return syntax(format!("--{} cannot be turned round with `!`", spec.name));
        }
        if self.line.options(index).any(|o| o.name == spec.means) {
            return syntax(format!("--{} is given twice", spec.means));
        }
        let words = start..self.at;
        self.line.options.push(Given { extension: index, name: spec.means, invert, args, words });
        Ok(())
    }

    /// An option that nothing claims: the extension read last turns opaque.
    fn unknown(&mut self, start: usize, name: &str) -> Result<(), ErrorKind> {
        let opaque = self.line.extensions.iter().rposition(|e| !e.known());
        let last = self.line.extensions.iter().rposition(|e| !e.is_verdict());
        let Some(index) = opaque.or(last) else {
            return syntax(format!("unknown option `{name}`"));
        };
        if let Some(extension) = self.line.extensions.get_mut(index) {
            extension.specs = None;
        }
        self.absorb(index, start..self.at);
        self.absorbing = Some(index);
        Ok(())
    }

    /// Exact names come before abbreviations, and what the rule has named
    /// before what its protocol could bring in.
    fn find(&mut self, name: &str) -> Found {
        let Some(long) = name.strip_prefix("--") else {
            return BuiltIn::exact(name).map_or(Found::Unknown, Found::BuiltIn);
        };
        for (index, extension) in self.line.extensions.iter().enumerate().rev() {
            if let Some(spec) = extension.specs.unwrap_or_default().iter().find(|s| s.name == long) {
                return Found::Option(index, spec);
            }
        }
        if let Some(option) = BuiltIn::exact(name) {
            return Found::BuiltIn(option);
        }
        let extensions = self.line.extensions.iter().enumerate().rev();
        let all = extensions.flat_map(|(i, e)| e.specs.unwrap_or_default().iter().map(move |s| (i, s)));
        let mut near = all.filter(|(_, s)| s.name.starts_with(long));
        let mut built_in = BUILT_IN.iter().filter(|(_, n, _)| n.starts_with(long)).map(|b| b.2);
        match (near.next(), built_in.next()) {
            (Some((index, spec)), None) if near.all(|(_, s)| s.means == spec.means) => {
                return Found::Option(index, spec)
            }
            (None, Some(option)) if built_in.all(|o| o == option) => return Found::BuiltIn(option),
            _ => {}
        }
        self.imply(long)
    }

    /// `-p tcp --dport 22` without `-m tcp`.
    fn imply(&mut self, long: &str) -> Found {
        let Some(Not { invert: false, value }) = self.line.protocol else { return Found::Unknown };
        let Some(name) = names::protocol_extension(value, self.family) else { return Found::Unknown };
        if self.line.extensions.iter().any(|e| !e.target && e.name == name) {
            return Found::Unknown;
        }
        let specs = options::of_match(name);
        let spec = specs.map(|specs| {
            let near = |s: &&Spec| s.name.starts_with(long);
            specs.iter().find(|s| s.name == long).or_else(|| specs.iter().find(near))
        });
        let index = self.line.extensions.len();
        match spec {
            // The protocol's options are known, and this is none of them.
            Some(None) => return Found::Unknown,
            // Not modelled: any option may be its own, unless something else
            // in the rule takes what it does not know.
            None if !self.line.extensions.iter().all(Extension::known) => return Found::Unknown,
            _ => {}
        }
        self.line.extensions.push(Extension {
            name,
            target: false,
            chain: None,
            implied: true,
            specs,
            head: 0..0,
        });
        match spec.flatten() {
            Some(spec) => Found::Option(index, spec),
            None => Found::Unknown,
        }
    }

    /// The next word, whatever it looks like.
    fn argument(&mut self, option: fmt::Arguments<'_>) -> Result<&'a str, ErrorKind> {
        let Some(word) = self.words.get(self.at) else {
            return syntax(format!("{option} needs an argument"));
        };
        self.at += 1;
        Ok(&word.text)
    }

    /// `-s ! 10.0.0.1`, as rules of iptables before 1.4 have it.
    fn old_negation(&mut self, invert: &mut bool) -> Result<(), ErrorKind> {
        if self.words.get(self.at).is_some_and(Word::is_bang) {
            if *invert {
                return syntax("`!` is given twice");
            }
            *invert = true;
            self.at += 1;
        }
        Ok(())
    }

    fn built_in(
        &mut self,
        option: BuiltIn,
        name: &str,
        attached: Option<&'a str>,
        mut invert: bool,
    ) -> Result<(), ErrorKind> {
        match option {
            BuiltIn::Fragment => {
                return once(&mut self.line.fragment, Not { invert, value: () }, name);
            }
            BuiltIn::OnlyFamily(family) if family == self.family && !invert => return Ok(()),
            BuiltIn::OnlyFamily(_) => {
                return syntax(format!("{name} has no place in rules of {}", self.family));
            }
            BuiltIn::Table => return syntax(format!("{name} has no place in a file of tables")),
            _ => {}
        }
        let head = self.at;
        let value = match attached {
            Some(value) => value,
            None => {
                self.old_negation(&mut invert)?;
                self.argument(format_args!("{name}"))?
            }
        };
        let family = self.family;
        match option {
            BuiltIn::Source => once(&mut self.line.source, addresses(value, invert, family)?, name),
            BuiltIn::Destination => once(&mut self.line.destination, addresses(value, invert, family)?, name),
            BuiltIn::InInterface => {
                once(&mut self.line.input, Not { invert, value: values::interface(value)? }, name)
            }
            BuiltIn::OutInterface => {
                once(&mut self.line.output, Not { invert, value: values::interface(value)? }, name)
            }
            BuiltIn::Protocol => {
                let number = values::protocol(value)?;
                if number == 0 && invert {
                    return Err(ErrorKind::Value("the rule would match no protocol".into()));
                }
                once(&mut self.line.protocol, Not { invert, value: number }, name)
            }
            _ if invert => syntax(format!("{name} cannot be turned round with `!`")),
            BuiltIn::Counters => {
                let bytes = match value.split_once(',') {
                    Some(_) => None,
                    None => Some(self.argument(format_args!("{name}"))?),
                };
                let (packets, bytes) = match bytes {
                    Some(bytes) => (value, bytes),
                    None => value.split_once(',').unwrap_or((value, "")),
                };
                match (packets.parse(), bytes.parse()) {
                    (Ok(packets), Ok(bytes)) => once(&mut self.line.counters, (packets, bytes), name),
                    _ => Err(values::bad(&format!("{packets} {bytes}"), "a pair of counters")),
                }
            }
            BuiltIn::Goto => {
                self.no_target_yet(name)?;
                self.line.goto = Some(value);
                Ok(())
            }
            BuiltIn::Jump => {
                self.no_target_yet(name)?;
                let chain = self.chains.get(value).copied();
                let specs = if chain.is_some() { Some(&[][..]) } else { options::of_target(value) };
                // The model keeps a target's text without its `-j`.
                let head = if attached.is_some() { head..head } else { head..head + 1 };
                self.push(Extension { name: value, target: true, chain, implied: false, specs, head });
                Ok(())
            }
            _ => {
                let name = options::canonical(value, family);
                let specs = options::of_match(name);
                let head = if attached.is_some() { head - 1..head } else { head - 1..head + 1 };
                self.push(Extension { name, target: false, chain: None, implied: false, specs, head });
                Ok(())
            }
        }
    }

    fn push(&mut self, extension: Extension<'a>) {
        if !extension.known() {
            self.absorbing = Some(self.line.extensions.len());
        }
        self.line.extensions.push(extension);
    }

    fn no_target_yet(&self, name: &str) -> Result<(), ErrorKind> {
        if self.line.goto.is_some() || self.line.extensions.iter().any(|e| e.target) {
            return syntax(format!("{name}: the rule already has a target"));
        }
        Ok(())
    }
}

/// `--dport=22` and `-ptcp` carry their argument with them.
fn split_option(text: &str) -> (&str, Option<&str>) {
    if text.starts_with("--") {
        return match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
    }
    match text.split_at_checked(2) {
        Some((name, value)) if !value.is_empty() && BuiltIn::exact(name).is_some() => (name, Some(value)),
        _ => (text, None),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), ErrorKind> {
    if slot.is_some() {
        return syntax(format!("{name} is given twice"));
    }
    *slot = Some(value);
    Ok(())
}

fn addresses(text: &str, invert: bool, family: Family) -> Result<Addresses, ErrorKind> {
    let (first, rest) = values::cut(text, b',').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let read = |part: &str| values::masked(part.trim(), family);
    let first = read(first)?;
    let more: Vec<Masked> =
        rest.into_iter().flat_map(|r| r.split(',')).map(read).collect::<Result<_, _>>()?;
    if invert && !more.is_empty() {
        return syntax("`!` cannot stand before several addresses");
    }
    Ok(Addresses { invert, first, more })
}
