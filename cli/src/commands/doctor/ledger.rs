//! What the ledger says: the node's keys and those of its peers, the time, and the plans that the site has consented to.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use fedledger_federation::{
    Federation,
    history::{History, Keep},
    member::Members,
};
use fedledger_participant::node::{self, core::Site, policy};
use fedledger_proto::{
    api::{ApiClient, ApiError},
    kit::{CliDefaults, IDENTITY_FILE, Identity, KitError, Selection},
};
use futures::future::join_all;
use tokio::time::timeout;

use super::{
    Check,
    data::Records,
    node::{Examined, Kit},
    within,
};
use crate::{context::Context, error::Failure, remote::RemoteSource, source::Source};

/// What to do about an API that cannot be used.
const API_ADVICE: &str = "people's commands need it, nodes do not: run them elsewhere, or name another replica";

/// How long reading the whole ledger may take.
const READING_MAX: Duration = Duration::from_secs(60);

/// Difference of clocks that disturbs nothing. Heads are co-signed by replicas whose clocks differ by two seconds at most.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);

/// Folder of a member's people, beside those of its nodes.
const IDENTITY_FOLDER: &str = "identity";

/// Looks at the ledger, and returns the members that it names; none if it cannot be read.
pub(super) fn examine(
    context: &Context,
    node: &Examined,
    records: Option<&mut Records>,
    patience: Duration,
    checks: &mut Vec<Check>,
) -> Result<Option<Members>, Failure> {
    let client = api(context, node, patience, checks)?;
    let (directory, runtime, threads) = (node.directory.clone(), context.runtime(), context.threads());
    let read = within(READING_MAX, move || {
        let source = match client {
            Some(client) => Source::Replica(Box::new(RemoteSource::new(client, runtime))),
            // A replica's; a participant keeps no ledger.
            None => Source::open(&directory).ok()?,
        };
        Some(History::read(&source, Keep::State, threads))
    });
    let read = match read {
        Some(Some(read)) => read,
        Some(None) => {
            let found = "it was not read: no API of a replica answers, and it does not lie here";
            checks.push(Check::warn("ledger", "", found).advise("consents are not known, nor keys that were replaced"));
            return Ok(None);
        }
        None => {
            checks.push(Check::warn("ledger", "", format!("it was not read within {READING_MAX:?}")));
            return Ok(None);
        }
    };
    let history = match read {
        Ok(history) => history,
        Err(error) => {
            let check = Check::warn("ledger", "", format!("it cannot be read: {error}"));
            checks.push(check.advise("`fedledger verify` says what is wrong with it"));
            return Ok(None);
        }
    };
    checks.push(Check::ok("ledger", "", format!("{} entries", history.log.size())));
    checks.extend(own_keys(node, history.state()));
    if let (Some(Kit::Participant(kit)), Some(records)) = (&node.kit, records) {
        let mut site = node::site(kit, records.own.clone(), node::trainers_of(kit).unwrap_or_default());
        // Who proposed a plan is not among what is read here.
        site.policy.operators = Selection::Any;
        let plans = history.state().plans().iter().filter(|(_, record)| !record.status.is_over());
        records.examine_plans(plans.map(|(_, record)| &record.plan), checks);
        checks.extend(consents(&site, records, history.state()));
    }
    Ok(Some(history.state().members().clone()))
}

/// Tries every API that is configured, all at once, and compares clocks; returns the first that answers.
fn api(
    context: &Context,
    node: &Examined,
    patience: Duration,
    checks: &mut Vec<Check>,
) -> Result<Option<ApiClient>, Failure> {
    let places = context.places()?;
    let mut urls = places.connect;
    if urls.is_empty() {
        let above = node.directory.canonicalize().ok().and_then(|folder| CliDefaults::find(&folder).ok().flatten());
        urls.extend(above.into_iter().flat_map(|defaults| defaults.connect));
    }
    if urls.is_empty() {
        checks.push(Check::ok(
            "api",
            "",
            "none is configured with --connect or in fedledger.toml; nodes do not need it",
        ));
        return Ok(None);
    }
    let Some(directory) = identity_directory(node, places.identity) else {
        let check = Check::warn("api", "", "not tried: there is no identity of this member's people here");
        checks.push(check.advise("name it with --identity DIR"));
        return Ok(None);
    };
    let identity = match context.unlock(|passphrase| Identity::load_with(&directory, passphrase)) {
        Ok(identity) => identity,
        Err(error @ KitError::Locked { .. }) => {
            checks.push(Check::warn("api", "", format!("not tried: {error}")));
            return Ok(None);
        }
        Err(error) => {
            checks.push(Check::warn("api", directory.display().to_string(), error.to_string()));
            return Ok(None);
        }
    };
    let ask = async |url: &String| timeout(patience, asked(url, &identity)).await;
    let answers = context.block_on(join_all(urls.iter().map(ask)));
    let mut first = None;
    for (url, answer) in urls.iter().zip(answers) {
        match answer {
            Ok(Ok((client, clock))) => {
                checks.push(Check::ok("api", url, "it answers, and the certificates of both sides are in order"));
                checks.push(clock_check(url, clock));
                first = first.or(Some(client));
            }
            Ok(Err(error)) => checks.push(Check::warn("api", url, error.to_string()).advise(API_ADVICE)),
            Err(_) => checks.push(Check::warn("api", url, format!("no answer within {patience:?}")).advise(API_ADVICE)),
        }
    }
    Ok(first)
}

/// A replica, how far its clock is ahead of ours, and how long it took to ask.
type Asked = (ApiClient, Option<(SystemTime, SystemTime)>);

async fn asked(url: &str, identity: &Identity) -> Result<Asked, ApiError> {
    let client = ApiClient::connect(url, identity).await?;
    let theirs = client.clock().await?;
    Ok((client, theirs.map(|theirs| (theirs, SystemTime::now()))))
}

/// Compares a replica's clock, which tells whole seconds, with ours at about the same moment.
fn clock_check(url: &str, clocks: Option<(SystemTime, SystemTime)>) -> Check {
    let Some((theirs, ours)) = clocks else {
        return Check::warn("clock", url, "the replica does not tell the time");
    };
    let (difference, how) = match ours.duration_since(theirs) {
        // The part of the second that the replica does not tell.
        Ok(ahead) => (ahead.saturating_sub(Duration::from_secs(1)), "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if difference <= CLOCK_DIFFERENCE_MAX {
        return Check::ok("clock", url, format!("within {CLOCK_DIFFERENCE_MAX:?} of the replica's"));
    }
    Check::warn("clock", url, format!("{} s {how} the replica's", difference.as_secs()))
        .advise("let NTP set the clock (`timedatectl set-ntp true`); a replica whose clock is off cannot lead")
}

/// The identity beside the node, or else the one that is configured.
fn identity_directory(node: &Examined, configured: Option<PathBuf>) -> Option<PathBuf> {
    let beside = node.directory.canonicalize().ok().and_then(|folder| Some(folder.parent()?.join(IDENTITY_FOLDER)));
    beside.filter(|folder| folder.join(IDENTITY_FILE).is_file()).or(configured)
}

/// Whether the node holds the keys that the ledger names.
fn own_keys(node: &Examined, state: &Federation) -> Option<Check> {
    let name = node.config.name();
    let Some((_, recorded)) = state.members().nodes().find(|(_, recorded)| recorded.name == name) else {
        let check = Check::fail("keys", name, "the members have excluded this node: nobody talks to it");
        return Some(check.advise("ask the members to admit it again (`fedledger proposal new`)"));
    };
    let current = match node.kit.as_ref()? {
        Kit::Participant(kit) => kit.as_ref().clone().for_node(recorded).map(drop),
        Kit::Replica(kit) => kit.as_ref().clone().for_node(recorded).map(drop),
    };
    Some(match current {
        Ok(()) => Check::ok("keys", name, "they are those that the ledger names now"),
        Err(error) => Check::fail("keys", name, error.to_string())
            .advise("take over the keys that the members have agreed on with `fedledger identity adopt`"),
    })
}

/// Which plans that go on the site takes part in.
fn consents(site: &Site, records: &Records, state: &Federation) -> Vec<Check> {
    let plans = state.plans().iter().filter(|(_, record)| !record.status.is_over());
    plans
        .map(|(id, record)| {
            let subject = format!("{} ({})", record.plan.name, record.status.name());
            let own = site.trainer_data(&record.plan).map(Ok);
            let Some(known) = own.or_else(|| records.of(&record.plan)) else {
                return Check::warn("consent", subject, "the records were not read as this plan describes them");
            };
            if record.consents.contains_key(&site.member) {
                return policy::objection_to_round(site, known, &record.plan, 1, "").map_or_else(
                    || Check::ok("consent", &subject, "this site has consented"),
                    |why| {
                        Check::warn("consent", &subject, format!("this site has consented, but it will decline: {why}"))
                            .advise("change policy.toml or the data if that is not what you want")
                    },
                );
            }
            let consented = policy::consented(state, &site.member);
            let why = policy::objection_to_consent(site, known, &record.plan, "", consented);
            let why = why.map_or_else(|| "the node has not run since".to_owned(), |why| why.to_string());
            let short: String = id.to_string().chars().take(12).collect();
            Check::warn("consent", subject, format!("not given: {why}")).advise(format!(
                "read the plan with `fedledger plan show {short}`; consent with `fedledger plan approve`"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn clocks_that_differ_by_more_than_the_replicas_bear_are_said_to() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let check = |theirs: i64| {
            let moved = Duration::from_secs(theirs.unsigned_abs());
            clock_check("u", Some((if theirs < 0 { now - moved } else { now + moved }, now)))
        };
        for same in [-3, -1, 0, 2] {
            assert_eq!(check(same).state, State::Ok, "{same}");
        }
        assert!(check(90).found.contains("90 s behind"));
        assert!(check(-91).found.contains("90 s ahead of"));
        assert_eq!(check(90).state, State::Warn);
        assert_eq!(clock_check("u", None).state, State::Warn);
    }
}
