//! A law of one's own, held over random labs and all of their packets at once:
//! where INPUT drops and no rule accepts, nothing is delivered, whatever else
//! the host does. `cargo run --example law`.

use lab_core::addr::Family;
use lab_core::engine::symbolic::{Ending, Flow, Symbolic};
use lab_core::formats::iptables;
use lab_core::strategies::lab;
use lab_core::Lab;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const CLOSED: &str = "*filter\n:INPUT DROP\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset\nCOMMIT\n";

/// The lab, whose client lets nothing in.
fn closed(mut lab: Lab) -> Lab {
    let tables = iptables::parse("closed", CLOSED, Family::Ipv4).unwrap_or_default();
    if let Some(host) = lab.host_mut("client") {
        host.ruleset.tables.retain(|table| table.name != "filter");
        host.ruleset.tables.extend(tables);
    }
    lab
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let labs = lab().prop_map(closed);
    TestRunner::deterministic().run(&labs, |lab| {
        let (client, mut engine) = (&lab.hosts["client"], Symbolic::new(&lab));
        engine.limit = 5_000;
        let Some(device) = client.interface("eth0") else { return Ok(()) };
        let v4 = engine.store().family(Family::Ipv4).map_err(|e| TestCaseError::fail(e.to_string()))?;
        // Labs that fall into too many parts are passed over.
        let Ok(flows) = engine.inject(client, device, Flow::new(v4, 64, 100, 0)) else { return Ok(()) };
        for flowed in flows {
            let inside = matches!(&flowed.ending, Ending::Delivered(at) if at.host == "client");
            prop_assert!(!inside, "let in: {:?}", engine.store().example(flowed.flow.set));
        }
        Ok(())
    })?;
    println!("nothing gets in, in 256 labs");
    Ok(())
}
