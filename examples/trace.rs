//! Follow one packet through the bundled lab and say what decided:
//! `cargo run --example trace [SNAPSHOT FROM TO]`.

use lab_core::model::{Decision, Outcome};
use lab_core::query::{ends, trace};
use lab_core::Lab;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut given = std::env::args().skip(1);
    let snapshot = given
        .next()
        .unwrap_or_else(|| format!("{}/examples/openstack-k8s/02-routes-only", env!("CARGO_MANIFEST_DIR")));
    let from = given.next().unwrap_or_else(|| "master".into());
    let to = given.next().unwrap_or_else(|| "controller".into());

    let lab = Lab::open(snapshot)?;
    let (from, to) = (ends::parse(&lab, &from)?, ends::parse(&lab, &to)?);
    let answer = trace::trace(&lab, &from, &to, &trace::Question::default())?;
    for way in &answer.ways {
        match &way.there.outcome {
            Outcome::Delivered { at, seen } => println!("arrives at {at}, from {}", seen.src),
            Outcome::ForwardedOut { at, .. } => println!("leaves the lab by {at}"),
            Outcome::Rejected { by, answer } => {
                println!("{} from {}: {}", answer.kind, answer.from_addr, name(by))
            }
            Outcome::Dropped { by } => println!("dropped: {}", name(by)),
        }
    }
    println!("{}", if answer.certain { "certain" } else { "possible" });
    Ok(())
}

fn name(by: &Decision) -> String {
    match by {
        Decision::Rule(rule) => format!("{}, `{}` at {}", rule.host, rule.text, rule.origin),
        Decision::Stage { host, stage } => format!("{host}, at {stage}"),
    }
}
