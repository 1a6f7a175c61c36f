//! `fedledger identity approve`: checks requests, and writes what an admitted member starts from.

use std::path::PathBuf;

use clap::Args;
use fedledger_federation::history::Keep;
use fedledger_ledger::Digest;
use fedledger_proto::kit::{MemberRequest, ProvisionedKits, write_new};
use serde::Serialize;

use super::requests::read_requests;
use crate::{
    context::Context,
    error::{Exit, Failure},
    output::list,
};

/// Arguments of `fedledger identity approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// Requests of members: files, or folders with files *.toml
    #[arg(value_name = "REQUEST", required = true)]
    requests: Vec<PathBuf>,
    /// Output directory of `fedledger provision`, with the certificate authority
    #[arg(long, value_name = "DIR", requires = "out")]
    kits: Option<PathBuf>,
    /// Directory for the folders to be sent back, one per member that the ledger has admitted
    #[arg(long, value_name = "DIR", requires = "kits")]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct View {
    member: String,
    name: String,
    nodes: usize,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
}

/// Checks requests, and approves them.
pub(super) fn run(context: &Context, args: &ApproveArgs) -> Result<(), Failure> {
    let requests = read_requests(&args.requests)?;
    for request in &requests {
        let checked = request.check(request.has_replica().then_some(1));
        let what =
            || format!("the request of {:?} must not be approved", request.id.chars().take(80).collect::<String>());
        checked.map_err(|error| Failure::because(Exit::Refused, what(), error))?;
    }
    let mut views: Vec<View> = requests.iter().map(View::of).collect();
    if let (Some(kits), Some(out)) = (&args.kits, &args.out) {
        let opened = context.unlock(|passphrase| ProvisionedKits::open(kits, passphrase));
        let kits = opened.map_err(|error| Failure::because(Exit::Failed, "nothing can be approved", error))?;
        let (_, history) = context.history(Keep::State)?;
        if *history.state().consortium() != kits.genesis().genesis {
            let what = "the ledger is of another consortium than the kits";
            return Err(Failure::because(
                Exit::Failed,
                what,
                format!("expected chain {}", Digest::of(&kits.genesis().bytes)),
            ));
        }
        for (request, view) in requests.iter().zip(&mut views) {
            let record = history.state().members().get(&request.id).ok_or_else(|| {
                Failure::new(Exit::Refused, format!("{} is not a member of the consortium", request.id))
                    .next("propose its admission with `fedledger member admit`")
            })?;
            let files = kits.approve(request, record).map_err(|error| {
                Failure::because(Exit::Refused, format!("the request of {} cannot be approved", request.id), error)
            })?;
            let folder = out.join(&request.id);
            write_new(&files, &folder).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
            view.directory = Some(folder.display().to_string());
        }
    }
    context.output.array(&views, || views.iter().map(View::text).collect::<Vec<_>>().join("\n"))
}

impl View {
    fn of(request: &MemberRequest) -> Self {
        Self {
            member: request.id.clone(),
            name: request.name.clone(),
            nodes: request.nodes.len(),
            fingerprint: request.fingerprint().to_string(),
            directory: None,
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("{} ({}), {} nodes: every key is held by whoever asks", self.member, self.name, self.nodes),
            format!("  fingerprint  {}", self.fingerprint),
        ];
        lines.push(match &self.directory {
            Some(directory) => {
                format!("  send back {}, which holds no secret, for `fedledger identity install`", list([directory]))
            }
            None => "  compare it over the telephone before you provision with it or admit the member".to_owned(),
        });
        lines.join("\n")
    }
}
