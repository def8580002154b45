//! Random rule sets in the tools' own words.

/// A source of chance that is the same everywhere (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn of(seed: u64) -> Self {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    pub fn pick<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}

const COMMENTS: [&str; 10] = [
    "plain",
    "two words",
    "it's",
    "$(touch /tmp/owned)",
    "`id`; id",
    "-j ACCEPT",
    "!",
    "a#b",
    "back\\slash",
    "ünï & co | x > y",
];

/// Names of chains that iptables takes, dear to shells.
const NAMES: [&str; 8] = ["web", "more", "$(id)", "a;b", "it's", "`ls`", "&&", "#x"];

/// One table: its chains with their rules, lines without `-A CHAIN`.
#[derive(Clone)]
struct Xtable {
    name: &'static str,
    /// Name, policy if built in.
    chains: Vec<(String, Option<&'static str>, Vec<String>)>,
}

fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "raw" => &["PREROUTING", "OUTPUT"],
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        _ => &["INPUT", "FORWARD", "OUTPUT"],
    }
}

fn escaped(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn xrule(dice: &mut Dice, six: bool, table: &str, site: &str, below: &[String]) -> String {
    let mut words: Vec<String> = Vec::new();
    let nets =
        if six { ["fd00::/64", "fd01::1", "::/1"] } else { ["10.0.0.0/8", "192.0.2.1", "10.1.2.0/24"] };
    if dice.one_in(2) {
        words.push(format!("-s {}", dice.pick(&nets)));
    }
    if dice.one_in(4) {
        words.push(format!("! -d {}", dice.pick(&nets)));
    }
    if dice.one_in(3) {
        words.push(format!("-p tcp -m tcp --dport {}", dice.pick(&[22, 80, 443])));
    }
    if dice.one_in(3) {
        words.push(format!("-m comment --comment {}", escaped(COMMENTS[dice.below(COMMENTS.len())])));
    }
    if dice.one_in(6) {
        words.push("-m conntrack --ctstate RELATED,ESTABLISHED".into());
    }
    let target = match dice.below(8) {
        0..=2 if !below.is_empty() => {
            let flag = if dice.one_in(4) { "-g" } else { "-j" };
            format!("{flag} {}", dice.pick(below))
        }
        3 | 4 => match (table, site) {
            ("nat", "d") if six => "-j DNAT --to-destination fd02::2".into(),
            ("nat", "d") => dice.pick(&["-j DNAT --to-destination 10.0.0.2", "-j REDIRECT"]).to_string(),
            ("nat", "s") if six => "-j SNAT --to-source fd02::2".into(),
            ("nat", "s") => dice.pick(&["-j MASQUERADE", "-j SNAT --to-source 10.0.0.2"]).to_string(),
            ("filter", _) => "-j REJECT".into(),
            ("mangle", _) => "-j MARK --set-xmark 0x1/0xff".into(),
            ("raw", _) => "-j CT --notrack".into(),
            _ => "-j RETURN".into(),
        },
        5 => "-j RETURN".into(),
        6 => String::new(),
        _ => dice.pick(&["-j ACCEPT", "-j DROP"]).to_string(),
    };
    // The nat table takes no DROP.
    let target = if table == "nat" && target == "-j DROP" { "-j ACCEPT".into() } else { target };
    words.push(target);
    words.join(" ")
}

fn xtable(dice: &mut Dice, six: bool, name: &'static str) -> Xtable {
    // Which chains there are, which leads to which, and, in nat, which hooks
    // each is for, is drawn anew: circles may be turned round.
    let mut own: Vec<String> = NAMES.iter().filter(|_| dice.one_in(2)).map(|n| (*n).to_owned()).collect();
    dice.shuffle(&mut own);
    let site: Vec<&str> = own.iter().map(|_| *dice.pick(&["d", "s"])).collect();
    let lower = |from: usize, of: &str| -> Vec<String> {
        let chains = own.iter().zip(&site).skip(from);
        chains.filter(|(_, s)| name != "nat" || **s == of).map(|(n, _)| n.clone()).collect()
    };
    let mut chains = Vec::new();
    for chain in built_in(name) {
        let of = if matches!(*chain, "PREROUTING" | "OUTPUT") { "d" } else { "s" };
        let policy = if name != "nat" && dice.one_in(3) { "DROP" } else { "ACCEPT" };
        // MASQUERADE is for POSTROUTING alone.
        let below = if *chain == "INPUT" && name == "nat" { Vec::new() } else { lower(0, of) };
        let site = if *chain == "INPUT" && name == "nat" { "" } else { of };
        let rules = (0..dice.below(7)).map(|_| xrule(dice, six, name, site, &below)).collect();
        chains.push(((*chain).to_owned(), Some(policy), rules));
    }
    for (at, chain) in own.iter().enumerate() {
        let below = lower(at + 1, site[at]);
        let rules = (0..dice.below(6)).map(|_| xrule(dice, six, name, site[at], &below)).collect();
        chains.push((chain.clone(), None, rules));
    }
    Xtable { name, chains }
}

/// The table with a few rules put in, taken out, moved or doubled.
fn changed(dice: &mut Dice, six: bool, table: &Xtable) -> Xtable {
    let mut table = table.clone();
    let name = table.name;
    for (chain, policy, rules) in &mut table.chains {
        if policy.is_some() && name != "nat" && dice.one_in(5) {
            *policy = Some(["ACCEPT", "DROP"][dice.below(2)]);
        }
        for _ in 0..dice.below(4) {
            let at = dice.below(rules.len() + 1);
            let site = match chain.as_str() {
                "PREROUTING" | "OUTPUT" => "d",
                "POSTROUTING" => "s",
                _ => "",
            };
            match dice.below(4) {
                0 => rules.insert(at, xrule(dice, six, name, site, &[])),
                1 if at < rules.len() => drop(rules.remove(at)),
                2 if at < rules.len() => rules.insert(dice.below(at + 1), rules[at].clone()),
                3 if at < rules.len() => {
                    let rule = rules.remove(at);
                    rules.insert(dice.below(rules.len() + 1), rule);
                }
                _ => {}
            }
        }
    }
    table
}

fn written(tables: &[Xtable]) -> String {
    let mut out = String::new();
    for table in tables {
        out += &format!("*{}\n", table.name);
        for (chain, policy, _) in &table.chains {
            out += &format!(":{chain} {} [0:0]\n", policy.unwrap_or("-"));
        }
        for (chain, _, rules) in &table.chains {
            for rule in rules {
                out += format!("-A {chain} {rule}").trim_end();
                out += "\n";
            }
        }
        out += "COMMIT\n";
    }
    out
}

/// Two rule sets, each of `iptables-restore` and, behind `#6`, of
/// `ip6tables-restore`.
pub fn iptables_pair(dice: &mut Dice) -> (String, String) {
    let (mut a, mut b) = (String::new(), String::new());
    for six in [false, true] {
        let tables: Vec<&'static str> =
            ["raw", "mangle", "nat", "filter"].into_iter().filter(|_| !dice.one_in(3)).collect();
        let old: Vec<Xtable> = tables.iter().map(|name| xtable(dice, six, name)).collect();
        let new: Vec<Xtable> = old
            .iter()
            .filter_map(|table| match dice.below(6) {
                0 => None,
                1 | 2 => Some(xtable(dice, six, table.name)),
                _ => Some(changed(dice, six, table)),
            })
            .collect();
        if six {
            a += "#6\n";
            b += "#6\n";
        }
        a += &written(&old);
        b += &written(&new);
    }
    if dice.one_in(2) {
        std::mem::swap(&mut a, &mut b);
    }
    (a, b)
}

#[derive(Clone)]
struct Ntable {
    head: String,
    sets: Vec<String>,
    chains: Vec<(String, String, Vec<String>)>,
}

const NFT_NAMES: [&str; 5] = ["web", "more", "a-b", "c.d", "_x"];
const NFT_COMMENTS: [&str; 6] =
    ["plain", "it's", "$(touch /tmp/owned)", "`id`; id", "# handle 7", "ünï & co"];

fn nrule(dice: &mut Dice, below: &[String], sets: &[&str]) -> String {
    let mut words: Vec<String> = Vec::new();
    if dice.one_in(2) {
        words.push(format!("ip saddr {}", dice.pick(&["10.0.0.0/8", "192.0.2.1", "!= 10.1.2.3"])));
    }
    if dice.one_in(3) {
        words.push(format!("tcp dport {}", dice.pick(&["22", "{ 80, 443 }", "1000-2000"])));
    }
    if !sets.is_empty() && dice.one_in(4) {
        let set = dice.pick(sets);
        words.push(match *set {
            "ports" => "tcp dport @ports".to_owned(),
            "nets" => "ip daddr @nets".to_owned(),
            "ways" => "tcp dport vmap @ways".to_owned(),
            _ => format!("ip saddr . tcp dport @{set}"),
        });
    }
    if dice.one_in(3) {
        words.push("counter".into());
    }
    if dice.one_in(8) {
        words.push(format!("limit rate {}/second", dice.pick(&[1, 2, 5])));
    }
    match dice.below(7) {
        0 | 1 if !below.is_empty() => {
            words.push(format!("{} {}", dice.pick(&["jump", "goto"]), dice.pick(below)))
        }
        2 => words.push("meta mark set 0x1".into()),
        3 => words.push("log prefix \"in: \"".into()),
        4 => words.push("return".into()),
        _ => words.push(dice.pick(&["accept", "drop", "reject"]).to_string()),
    }
    if dice.one_in(3) {
        words.push(format!("comment \"{}\"", dice.pick(&NFT_COMMENTS)));
    }
    words.join(" ")
}

fn nset(dice: &mut Dice, name: &str) -> String {
    let pick = |dice: &mut Dice, all: &[&str]| {
        let some: Vec<&str> = all.iter().copied().filter(|_| dice.one_in(2)).collect();
        match some.is_empty() {
            true => String::new(),
            false => format!("elements = {{ {} }};", some.join(", ")),
        }
    };
    match name {
        "ports" => {
            let flags = if dice.one_in(4) { "flags interval; " } else { "" };
            let all = ["22", "80", "443"];
            format!("set ports {{ type inet_service; {flags}{} }}", pick(dice, &all))
        }
        "nets" => {
            let all = ["10.0.0.0/8", "192.0.2.1", "172.16.0.0-172.16.0.9"];
            format!("set nets {{ type ipv4_addr; flags interval; {} }}", pick(dice, &all))
        }
        "ways" => {
            let all = ["22 : accept", "80 : drop", "443 : jump last"];
            format!("map ways {{ type inet_service : verdict; {} }}", pick(dice, &all))
        }
        _ => {
            let all = ["10.0.0.1 . 22", "10.0.0.2 . 80"];
            format!("set ends {{ type ipv4_addr . inet_service; {} }}", pick(dice, &all))
        }
    }
}

fn ntable(dice: &mut Dice, head: &str) -> Ntable {
    let mut own: Vec<String> = NFT_NAMES.iter().filter(|_| dice.one_in(2)).map(|n| (*n).to_owned()).collect();
    dice.shuffle(&mut own);
    let names: Vec<&str> = ["ports", "nets", "ways", "ends"].into_iter().filter(|_| dice.one_in(2)).collect();
    let sets = names.iter().map(|name| nset(dice, name)).collect();
    let mut chains = Vec::new();
    for (name, hook) in [("in", "input"), ("pass", "forward"), ("out", "output")] {
        if dice.one_in(4) {
            continue;
        }
        let priority = dice.pick(&[0, 0, 0, 10, -5]);
        let policy = dice.pick(&["accept", "accept", "drop"]);
        let base = format!("type filter hook {hook} priority {priority}; policy {policy};");
        let rules = (0..dice.below(7)).map(|_| nrule(dice, &own, &names)).collect();
        chains.push((name.to_owned(), base, rules));
    }
    for (at, chain) in own.iter().enumerate() {
        let below: Vec<String> = own[at + 1..].to_vec();
        let rules = (0..dice.below(5)).map(|_| nrule(dice, &below, &names)).collect();
        chains.push((chain.clone(), String::new(), rules));
    }
    chains.push(("last".to_owned(), String::new(), vec!["accept".to_owned()]));
    Ntable { head: head.to_owned(), sets, chains }
}

fn nchanged(dice: &mut Dice, table: &Ntable) -> Ntable {
    let mut table = table.clone();
    for set in &mut table.sets {
        if dice.one_in(2) {
            let name = set.split(' ').nth(1).unwrap().to_owned();
            *set = nset(dice, &name);
        }
    }
    for (_, base, rules) in &mut table.chains {
        if dice.one_in(5) {
            *base = base.replace("policy accept", "policy drop");
        }
        for _ in 0..dice.below(4) {
            let at = dice.below(rules.len() + 1);
            match dice.below(4) {
                0 => rules.insert(at, nrule(dice, &[], &[])),
                1 if at < rules.len() => drop(rules.remove(at)),
                2 if at < rules.len() => rules.insert(dice.below(at + 1), rules[at].clone()),
                3 if at < rules.len() => {
                    let rule = rules.remove(at);
                    rules.insert(dice.below(rules.len() + 1), rule);
                }
                _ => {}
            }
        }
    }
    table
}

fn nwritten(tables: &[Ntable]) -> String {
    let mut out = String::new();
    for table in tables {
        out += &format!("table {} {{\n", table.head);
        // What is led to stands first.
        out += "\tchain last {\n\t}\n";
        for set in &table.sets {
            out += &format!("\t{set}\n");
        }
        for (name, base, rules) in table.chains.iter().rev() {
            out += &format!("\tchain {name} {{\n");
            for line in std::iter::once(base).filter(|b| !b.is_empty()).chain(rules) {
                out += &format!("\t\t{line}\n");
            }
            out += "\t}\n";
        }
        out += "}\n";
    }
    out
}

/// Two rule sets for `nft -f`.
pub fn nft_pair(dice: &mut Dice) -> (String, String) {
    let heads: Vec<&str> = ["inet fw", "ip t"].into_iter().filter(|_| !dice.one_in(3)).collect();
    let old: Vec<Ntable> = heads.iter().map(|head| ntable(dice, head)).collect();
    let new: Vec<Ntable> = old
        .iter()
        .filter_map(|table| match dice.below(6) {
            0 => None,
            1 | 2 => Some(ntable(dice, &table.head)),
            _ => Some(nchanged(dice, table)),
        })
        .collect();
    let (mut a, mut b) = (nwritten(&old), nwritten(&new));
    if dice.one_in(2) {
        std::mem::swap(&mut a, &mut b);
    }
    (a, b)
}
