//! `lab plan A B`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{print_json, Failure, NO, YES};
use crate::query::plan::{plan, Plan};
use crate::query::policy::Policy;
use crate::{render, Lab};

/// Safe steps from one snapshot to another.
#[derive(Args)]
pub(super) struct PlanArgs {
    /// The snapshot folder of the lab as it is.
    old: PathBuf,
    /// The snapshot folder of the lab as it should be.
    new: PathBuf,
    /// A policy file: what its [[keep]] lines name passes in every state, or
    /// there is no plan.
    #[arg(long, value_name = "POLICY.toml")]
    keep: Option<PathBuf>,
    /// Write the plan as scripts into this folder, which is made: one for each
    /// run of steps on a host, to be run in the order of their names.
    #[arg(long, value_name = "FOLDER")]
    scripts: Option<PathBuf>,
    /// Seconds that a script waits to be confirmed before it undoes its steps.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
}

pub(super) fn run(args: &PlanArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let (old, new) = (Lab::open(&args.old)?, Lab::open(&args.new)?);
    let keep = match &args.keep {
        None => Policy::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            Policy::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?
        }
    };
    if args.keep.is_some() && keep.keep.is_empty() {
        return Err("the policy has no [[keep]] lines: there is nothing in it to keep".into());
    }
    let found = plan(&old, &new, &keep)?;
    if json {
        print_json(&found, out)?;
    } else {
        write!(out, "{}", render::plan::plan(&found))?;
    }
    if let Some(folder) = &args.scripts {
        write_scripts(folder, &found, args.timeout, out, json)?;
    }
    Ok(if found.refused.is_none() && found.keeps { YES } else { NO })
}

fn write_scripts(
    folder: &Path,
    plan: &Plan,
    seconds: u32,
    out: &mut dyn Write,
    json: bool,
) -> Result<(), Failure> {
    let io = |e: std::io::Error| format!("{}: {e}", folder.display());
    // Scripts of another plan must not be taken for parts of this one.
    std::fs::create_dir(folder).map_err(io)?;
    for script in render::plan::scripts(plan, seconds) {
        std::fs::write(folder.join(&script.name), &script.text).map_err(io)?;
        if !json {
            writeln!(out, "wrote {}", render::safe(&folder.join(&script.name).display().to_string()))?;
        }
    }
    Ok(())
}
