//! For which packets called chains are compiled.

use super::super::compile::ANYWHERE;
use super::super::{ChainLeaves, Compiler, TableChains};
use crate::engine::stepper::tests::build::Build;
use crate::semantics::sets::Sets;
use crate::space::Error;

/// Compiles FORWARD, the first chain, and tells whether `web`, the second, is
/// for any packets, not only for those that its caller sends.
fn is_for_all(rules: &str) -> Result<bool, Error> {
    let mut lab = Build::line();
    lab.rules("router", &format!("*filter\n:FORWARD ACCEPT\n:web -\n{rules}"));
    let host = &lab.lab.hosts["router"];
    let (mut sets, mut leaves, mut chains) =
        (Sets::default(), ChainLeaves::default(), TableChains::default());
    let table = &host.ruleset.tables[0];
    let mut compiler = Compiler { host, table, sets: &mut sets, leaves: &mut leaves, chains: &mut chains };
    compiler.base(0)?;
    Ok(chains.compiled(1, false).unwrap().context == ANYWHERE)
}

/// The rules of a chain that one rule calls need not ask what that rule did.
#[test]
fn a_chain_is_compiled_for_its_caller_if_it_has_one_and_else_for_all() {
    for (callers, for_all) in [
        (&["-p tcp -j web"][..], false),
        (&["-p tcp -g web"], false),
        (&["-j web"], true),
        // The second knows more, and would make do with what the first has.
        (&["-p tcp -j web", "-p tcp -m tcp --dport 1:100 -j web"], true),
        (&["-p tcp -j web", "-p tcp -m tcp --dport 1:100 -g web"], true),
        (&["-p tcp -j web", "-p udp -j web"], true),
        (&["-p tcp -j web", "-j web", "-p tcp -m tcp --dport 1:100 -j web"], true),
    ] {
        let callers: Vec<String> = callers.iter().map(|rule| format!("-A FORWARD {rule}")).collect();
        let rules = format!("{}\n-A web -p tcp -m tcp --dport 80 -j DROP", callers.join("\n"));
        assert_eq!(is_for_all(&rules), Ok(for_all), "{rules}");
    }
}

#[test]
fn chains_call_each_other_so_deep_and_no_deeper() {
    // FORWARD and `web` are chains, too.
    for (more, wanted) in [(199, Ok(true)), (200, Err(Error::Depth))] {
        let names: String = (0..more).map(|n| format!(":c{n} -\n")).collect();
        let calls: String = (1..more).map(|n| format!("-A c{} -j c{n}\n", n - 1)).collect();
        let rules = format!("{names}-A FORWARD -j web\n-A web -j c0\n{calls}-A c{} -j DROP", more - 1);
        assert_eq!(is_for_all(&rules), wanted, "{more}");
    }
}
