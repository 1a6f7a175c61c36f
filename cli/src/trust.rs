//! Whom the reader trusts: a policy, or the genesis file and the chain of epochs that follows from it.

use std::path::{Path, PathBuf};

use clap::Args;
use fedledger_federation::{history::origin, member::Genesis};
use fedledger_ledger::{
    PublicKey,
    epoch::{EPOCH_CHAIN_SIZE_BYTES_MAX, EpochChain, Epochs},
    evidence::Signers,
    limits::GENESIS_SIZE_BYTES_MAX,
    note::SignedNote,
    policy::{POLICY_SIZE_BYTES_MAX, Policy},
};

use crate::{
    context::read_file,
    error::{Exit, Failure},
};

/// Arguments that name what is trusted.
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// The policy that you trust (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The genesis file that you trust
    #[arg(long, value_name = "GENESIS")]
    pub trust: Option<PathBuf>,
    /// The chain of epochs since the genesis file, from `fedledger export --epochs`; it is checked, not trusted
    #[arg(long, value_name = "FILE", requires = "trust")]
    pub epochs: Option<PathBuf>,
}

/// What is trusted.
#[derive(Debug)]
pub(crate) enum Trust {
    /// A policy.
    Policy(Policy),
    /// The epochs that follow from a genesis file.
    Epochs {
        /// The genesis file.
        genesis: Box<Genesis>,
        /// The epochs.
        epochs: Epochs,
    },
}

impl Trust {
    /// Reads what the arguments name.
    pub fn read(args: &TrustArgs) -> Result<Self, Failure> {
        match (&args.policy, &args.trust) {
            (Some(path), None) => Ok(Self::Policy(policy(path)?)),
            (None, Some(path)) => epochs(path, args.epochs.as_deref()),
            (Some(_), Some(_)) => Err(Failure::new(Exit::Usage, "--policy and --trust exclude each other here")),
            (None, None) => Err(Failure::new(Exit::Usage, "nothing is given that you trust").next(
                "name a policy with --policy FILE, or the genesis file with --trust GENESIS and, if members or keys have \
                 changed since, the chain of epochs with --epochs FILE",
            )),
        }
    }

    /// The policy that a note must satisfy.
    pub fn policy_for(&self, note: &SignedNote) -> Result<Policy, String> {
        match self {
            Self::Policy(policy) => Ok(policy.clone()),
            Self::Epochs { epochs, .. } => epochs.policy_for(note).map_err(|error| error.to_string()),
        }
    }

    /// Everybody who may sign heads, with the keys of any epoch.
    pub fn signers(&self) -> Signers {
        match self {
            Self::Policy(policy) => {
                let mut signers = Signers::default();
                let witnesses = policy.witnesses().iter().map(|witness| &witness.key);
                let keys = policy.logs().iter().map(|log| &log.key).chain(witnesses);
                keys.for_each(|key| signers.add_key(key.clone()));
                signers
            }
            Self::Epochs { epochs, .. } => Signers::of(epochs.origin(), epochs.iter().map(|(_, epoch)| epoch)),
        }
    }

    /// The member whose transactions this key signs, and its node, as the genesis file has them.
    pub fn author(&self, key: &PublicKey) -> Option<(String, Option<String>)> {
        let Self::Epochs { genesis, .. } = self else { return None };
        let organisation = genesis.members.iter().find(|member| member.organisation_key == *key);
        let node = || genesis.nodes().find(|(_, node)| node.transaction_key == *key);
        organisation
            .map(|member| (member.id.clone(), None))
            .or_else(|| node().map(|(member, node)| (member.id.clone(), Some(node.name.clone()))))
    }
}

/// The policy in a file.
pub(crate) fn policy(path: &Path) -> Result<Policy, Failure> {
    let bytes = read_file(path, POLICY_SIZE_BYTES_MAX as u64)?;
    Policy::parse(&bytes)
        .map_err(|error| Failure::because(Exit::Failed, format!("{} is no policy", path.display()), error))
}

/// The chain of epochs in a file; nothing is checked but its form.
pub(crate) fn chain(path: &Path) -> Result<EpochChain, Failure> {
    let bytes = read_file(path, EPOCH_CHAIN_SIZE_BYTES_MAX as u64)?;
    EpochChain::from_bytes(&bytes)
        .map_err(|error| Failure::because(Exit::Failed, format!("{} is no chain of epochs", path.display()), error))
}

fn epochs(genesis: &Path, chain: Option<&Path>) -> Result<Trust, Failure> {
    let bytes = read_file(genesis, GENESIS_SIZE_BYTES_MAX as u64)?;
    let parsed = Genesis::parse(&bytes);
    let genesis = parsed
        .map_err(|error| Failure::because(Exit::Failed, format!("{} is no genesis file", genesis.display()), error))?;
    let (first, origin) = (genesis.epoch(), origin(&genesis));
    let epochs = match chain {
        None => Epochs::first(&origin, first),
        Some(path) => {
            let bytes = read_file(path, EPOCH_CHAIN_SIZE_BYTES_MAX as u64)?;
            let epochs = EpochChain::from_bytes(&bytes).and_then(|chain| chain.verify(&origin, &first));
            let what = || format!("{} does not follow from the genesis file", path.display());
            epochs.map_err(|error| Failure::because(Exit::Mismatch, what(), error))?
        }
    };
    Ok(Trust::Epochs { genesis: Box::new(genesis), epochs })
}
