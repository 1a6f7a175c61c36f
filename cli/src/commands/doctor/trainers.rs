//! The programs that may train at a site.

use std::{fs, path::Path};

use fedledger_participant::node::trainers_of;
use fedledger_proto::kit::ParticipantKit;

use super::Check;

/// Tells the digest of each program, and what keeps it from being run.
pub(super) fn examine(kit: &ParticipantKit) -> Vec<Check> {
    let known = match trainers_of(kit) {
        Ok(known) => known,
        Err(error) => {
            let advice = "the node does not start without it: put it there, or correct `trainers` in node.toml";
            return vec![Check::fail("trainer", error.trainer.clone(), error.to_string()).advise(advice)];
        }
    };
    let check = |(name, config): (&String, &fedledger_proto::kit::TrainerConfig)| {
        let program = kit.directory.join(&config.program);
        if !is_executable(&program) {
            let found = format!("{} is no program that can be executed", program.display());
            return Check::fail("trainer", name.clone(), found)
                .advise("`chmod +x` it, and let a script begin with a line such as `#!/usr/bin/env python3`");
        }
        let digest = known.get(name).map(|trainer| trainer.program.to_string()).unwrap_or_default();
        Check::ok("trainer", name.clone(), format!("program {digest}"))
    };
    kit.config.trainers.iter().map(check).collect()
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}
