//! Rounds of a consortium of processes: how long they take, in how much memory, and what a killed leader costs.

mod consortium;
mod follow;
mod plan;

use std::time::Instant;

use fedledger_federation::{
    Command, Event, VersionId,
    command::{FileRef, MoveBranch, StartPlan},
};
use fedledger_ledger::Digest;
use fedledger_proto::api::ApiClient;

use crate::{figure::Figure, load::median};
use consortium::Consortium;
use follow::Follower;
use plan::{Model, Work, plan};

pub use consortium::{PARTICIPANTS_OPTION, run_participants};

/// Participants of the rows that stand beside other systems.
const PARTICIPANTS: usize = 4;

/// Replicas of the rows with several.
const REPLICAS: usize = 3;

/// Rounds that are not counted: the first one meets cold memory.
const WARM_UP: u64 = 1;

/// Rounds of the tiny model.
const TINY_ROUNDS: u64 = 40;

/// Rounds of the model of 100 MB.
const BIG_ROUNDS: u64 = 5;

/// Rounds of every consortium whose coordinators' memory is compared.
const COMPARED_ROUNDS: u64 = 3;

/// Participants of these.
const FEW: usize = 10;
const MANY: usize = 100;

/// Participants of the model of 100 MB that are to fit on one machine in good time.
const BIG_PARTICIPANTS: usize = 50;

/// Leaders that are killed, one in each round from the second on.
const KILLED: u64 = 5;

/// Branches that are moved back.
const ROLLBACKS: usize = 7;

/// What a run of a plan has shown.
struct Trained {
    /// Seconds from opening a round to its final version, for each round but the first.
    final_s: Vec<f64>,
    /// Seconds from opening a round to opening the next one.
    next_s: Vec<f64>,
    memory_mib: f64,
    coordinator_peak_mib: f64,
}

/// The tiny model. Flower: 6.4 s, 2.0 GB; NVIDIA FLARE: 2.5 s, 1.28 GB, nearly all of it waiting.
pub async fn tiny() -> Vec<Figure> {
    let mut consortium = Consortium::start(1, PARTICIPANTS);
    let trained = train(&mut consortium, Model::Tiny, PARTICIPANTS, TINY_ROUNDS).await;
    let mut figures =
        times("round", "tiny model, 4 participants, 1 replica", trained.final_s, trained.next_s, (0.3, 0.1));
    let what = "tiny model, 4 participants, 1 replica: memory of all processes (PSS)";
    figures.push(Figure::lower("round", what, trained.memory_mib, "MiB").target(500e6 / MIB, 250e6 / MIB));
    figures
}

/// The model of 100 MB. Flower: 14.2 s; NVIDIA FLARE's simulator: 3.45 s.
pub async fn big() -> Vec<Figure> {
    let mut consortium = Consortium::start(1, PARTICIPANTS);
    let trained = train(&mut consortium, Model::Big, PARTICIPANTS, BIG_ROUNDS).await;
    let mut figures =
        times("round-big", "100 MB, 4 participants, 1 replica", trained.final_s, trained.next_s, (4.0, 2.0));
    let what = "100 MB, 4 participants, 1 replica: peak memory of the coordinator";
    figures
        .push(Figure::lower("round-big", what, trained.coordinator_peak_mib, "MiB").target(450e6 / MIB, 350e6 / MIB));
    drop(consortium);
    let mut consortium = Consortium::start_over(1, PARTICIPANTS, "tcp://");
    let mut trained = train(&mut consortium, Model::Big, PARTICIPANTS, BIG_ROUNDS).await;
    let what = "100 MB, 4 participants, 1 replica, without QUIC: one round to the next, median";
    figures.push(Figure::lower("round-big", what, median(&mut trained.next_s), "s"));
    figures
}

/// The same with replicas that all compute every version.
pub async fn replicated() -> Vec<Figure> {
    let mut consortium = Consortium::start(REPLICAS, PARTICIPANTS);
    let trained = train(&mut consortium, Model::Big, PARTICIPANTS, BIG_ROUNDS).await;
    let mut figures =
        times("replicas", "100 MB, 4 participants, 3 replicas", trained.final_s, trained.next_s, (10.0, 5.0));
    let what = "100 MB, 4 participants, 3 replicas: peak memory of the largest replica";
    figures.push(Figure::lower("replicas", what, trained.coordinator_peak_mib, "MiB"));
    figures
}

/// The model of 1 GiB.
pub async fn giant() -> Vec<Figure> {
    let mut consortium = Consortium::start(1, PARTICIPANTS);
    let mut trained = train(&mut consortium, Model::Giant, PARTICIPANTS, 1).await;
    let what = |what| format!("1 GiB, 4 participants, 1 replica: {what}");
    let peak = Figure::lower("giant", what("peak memory of the coordinator"), trained.coordinator_peak_mib, "MiB");
    vec![
        Figure::lower("giant", what("opened to final"), median(&mut trained.final_s), "s"),
        peak.target(3.2 * 1024.0, 2.2 * 1024.0),
    ]
}

/// What more participants cost the coordinator.
pub async fn participants() -> Vec<Figure> {
    let mut peaks = Vec::new();
    let mut figures = Vec::new();
    for participants in [FEW, MANY] {
        let mut consortium = Consortium::start_together(1, participants);
        let trained = train(&mut consortium, Model::Medium, participants, COMPARED_ROUNDS).await;
        let what = format!("4 MB, {participants} participants, 1 replica: peak memory of the coordinator");
        figures.push(Figure::lower("sites", what, trained.coordinator_peak_mib, "MiB"));
        peaks.push(trained.coordinator_peak_mib);
    }
    let what = format!("4 MB: peak memory of the coordinator, {FEW} to {MANY} participants");
    figures.push(growth("sites", what, &peaks));
    figures
}

/// The model of 100 MB with many participants, whose updates are of half the size, so that all fit on a usual disk.
pub async fn big_participants() -> Vec<Figure> {
    let mut peaks = Vec::new();
    let mut figures = Vec::new();
    for participants in [FEW, BIG_PARTICIPANTS, MANY] {
        let mut consortium = Consortium::start_together(1, participants);
        let mut trained = train(&mut consortium, Model::BigHalved, participants, 1).await;
        let what = |what| format!("100 MB, {participants} participants, updates in bf16, 1 replica: {what}");
        figures.push(Figure::lower("sites-big", what("opened to final"), median(&mut trained.final_s), "s"));
        let peak = what("peak memory of the coordinator");
        figures.push(Figure::lower("sites-big", peak, trained.coordinator_peak_mib, "MiB"));
        peaks.push(trained.coordinator_peak_mib);
    }
    let what = format!("100 MB: peak memory of the coordinator, {FEW} to {MANY} participants");
    figures.push(growth("sites-big", what, &peaks));
    figures
}

/// By how much the last peak is above the first.
fn growth(row: &'static str, what: String, peaks: &[f64]) -> Figure {
    let growth = (peaks[peaks.len() - 1] / peaks[0] - 1.0) * 100.0;
    Figure::lower(row, what, growth, "%").target(10.0, 2.0)
}

/// Leaders that are killed while a round is open.
pub async fn failover() -> Vec<Figure> {
    let (undisturbed, _, mut round_s) = weights_after_kills(0).await;
    let (weights, mut times, _) = weights_after_kills(KILLED).await;
    assert_eq!(weights, undisturbed, "the same contributions lead to the same bytes, whoever leads");
    let most = times.iter().copied().fold(0.0, f64::max);
    let what = format!("tiny model, {REPLICAS} replicas: leader killed in a round, to its version");
    let figure = |what, seconds| Figure { aim: Some(2.0), ..Figure::lower("failover", what, seconds, "s") };
    vec![
        Figure::lower("failover", "the same rounds undisturbed, opened to attested, median", median(&mut round_s), "s"),
        figure(format!("{what}, median of {KILLED}"), median(&mut times)),
        figure(format!("{what}, longest"), most),
    ]
}

/// The weights of every version of a run in which leaders were killed, how long it took each time until the version, and how
/// long the rounds took.
async fn weights_after_kills(kills: u64) -> (Vec<Option<FileRef>>, Vec<f64>, Vec<f64>) {
    let mut consortium = Consortium::start(REPLICAS, PARTICIPANTS);
    let rounds = KILLED + 1;
    let client = consortium.client(consortium.leader().await).await;
    let (_, mut follower) = begin(&consortium, &client, Work::Noticeable, Model::Tiny, PARTICIPANTS, rounds).await;
    let mut times = Vec::new();
    for round in 2..2 + kills {
        follower
            .until("the round", |follower| follower.last_opened().filter(|(_, key)| key.round == round).map(drop))
            .await;
        let leader = consortium.leader().await;
        let other = consortium.client((leader + 1) % REPLICAS).await;
        follower = Follower::new(&other, consortium.genesis());
        let mid_round = |follower: &Follower| {
            let joined =
                |seen: &follow::Seen| matches!(&seen.event, Event::RoundJoined { key, .. } if key.round == round);
            follower.seen.iter().any(joined).then_some(())
        };
        follower.until("a participant to join", mid_round).await;
        assert!(follower.round(round).is_none(), "the round is over: let participants train longer");
        consortium.kill_replica(leader);
        let killed = Instant::now();
        let attested = follower.until("the version", |follower| follower.round(round)).await.attested;
        times.push(attested.duration_since(killed).as_secs_f64());
        consortium.start_replica(leader);
    }
    follower.until("the last version", |follower| follower.round(rounds)).await;
    let weights = follower.state().attested().map(|(_, _, record)| record.manifest.weights()).collect();
    let rounds = (2..=rounds).filter_map(|number| follower.round(number));
    (weights, times, rounds.map(|round| seconds(round.opened, round.attested)).collect())
}

/// From asking for a rollback until every participant has joined a round that begins with the version gone back to.
pub async fn rollback() -> Vec<Figure> {
    let consortium = Consortium::start(REPLICAS, PARTICIPANTS);
    let client = consortium.client(consortium.leader().await).await;
    let rounds = 1_000;
    let (_, mut follower) = begin(&consortium, &client, Work::Noticeable, Model::Tiny, PARTICIPANTS, rounds).await;
    let mut times = Vec::new();
    while times.len() < ROLLBACKS {
        let seen = follower.seen.len();
        // In the middle of a round that others follow, so the branch does not move at the same time.
        let in_a_round = |follower: &Follower| {
            let last = follower.seen.last()?;
            let head = *follower.state().branches().get(&plan::BRANCH.to_owned())?;
            let parent = *follower.state().versions().get(&head)?.manifest.parents.first()?;
            let joined = matches!(last.event, Event::RoundJoined { .. }) && follower.seen.len() > seen;
            joined.then_some((head, parent))
        };
        let (head, parent) = follower.until("a round after the first version", in_a_round).await;
        let command = Command::MoveBranch(MoveBranch {
            branch: plan::BRANCH.to_owned(),
            from: Some(head),
            to: parent,
            revoke: true,
            reason: "to be measured".to_owned(),
        });
        let asked = Instant::now();
        let submitted = consortium.submit(&client, &command).await;
        let Ok(submitted) = submitted.accepted() else { continue };
        let everywhere = |follower: &Follower| joined_by_all(follower, submitted.index, parent);
        let done = follower.until("every participant to begin anew", everywhere).await;
        times.push(done.duration_since(asked).as_secs_f64());
    }
    let what = format!("tiny model, {REPLICAS} replicas: rollback to every participant training from it, median");
    vec![Figure::lower("rollback", what, median(&mut times), "s").target(1.0, 0.3)]
}

/// When the last participant has joined a round that was opened after an entry, from a version.
fn joined_by_all(follower: &Follower, after: u64, from: VersionId) -> Option<Instant> {
    let opened = follower.seen.iter().find_map(|seen| match &seen.event {
        Event::RoundOpened { key, base, .. } if seen.index > after && *base == from => Some(*key),
        _ => None,
    })?;
    let joined = |seen: &&follow::Seen| matches!(&seen.event, Event::RoundJoined { key, .. } if *key == opened);
    let joined: Vec<_> = follower.seen.iter().filter(joined).collect();
    (joined.len() == PARTICIPANTS).then(|| joined.last().map(|seen| seen.at)).flatten()
}

/// Proposes a plan, waits until everybody has consented, and starts it.
async fn begin(
    consortium: &Consortium,
    client: &ApiClient,
    work: Work,
    model: Model,
    participants: usize,
    rounds: u64,
) -> (Digest, Follower) {
    let plan = plan(model, work, participants, rounds);
    let id = plan.id();
    let mut follower = Follower::new(client, consortium.genesis());
    consortium.submit(client, &Command::ProposePlan(plan)).await.accepted().unwrap();
    let consented = |follower: &Follower| {
        let plan = follower.state().plans().get(&id)?;
        (plan.consents.len() == participants).then_some(())
    };
    follower.until("every participant's consent", consented).await;
    consortium.submit(client, &Command::StartPlan(StartPlan { plan: id })).await.accepted().unwrap();
    (id, follower)
}

/// Carries a plan out and says how its rounds went.
async fn train(consortium: &mut Consortium, model: Model, participants: usize, rounds: u64) -> Trained {
    let client = consortium.client(consortium.leader().await).await;
    // A round that is not counted comes first, unless there is only one.
    let first = if rounds > 1 { 1 + WARM_UP } else { 1 };
    let (_, mut follower) = begin(consortium, &client, Work::Little, model, participants, rounds + first - 1).await;
    let (mut memory_mib, mut measured) = (0.0_f64, Vec::new());
    for number in 1..rounds + first {
        let round = follower.until("the round", |follower| follower.round(number)).await;
        memory_mib = memory_mib.max(consortium.memory_mib());
        if number >= first {
            measured.push(round);
        }
    }
    say_phases(&measured);
    Trained {
        final_s: measured.iter().map(|round| seconds(round.opened, round.finalised)).collect(),
        next_s: measured.windows(2).map(|pair| seconds(pair[0].opened, pair[1].opened)).collect(),
        memory_mib,
        coordinator_peak_mib: consortium.coordinator_peak_mib(),
    }
}

/// Where the time goes, for whoever wants to make it less.
fn say_phases(rounds: &[follow::Round]) {
    type Phase = (&'static str, fn(&follow::Round) -> f64);
    let phases: [Phase; 4] = [
        ("opened to closed", |round| seconds(round.opened, round.closed)),
        ("closed to proposed", |round| seconds(round.closed, round.proposed)),
        ("proposed to attested", |round| seconds(round.proposed, round.attested)),
        ("attested to final", |round| seconds(round.attested, round.finalised)),
    ];
    for (phase, of) in phases {
        let mut times: Vec<f64> = rounds.iter().map(of).collect();
        eprintln!("figures:   {phase}: {:.3} s", median(&mut times));
    }
    let mut idle: Vec<f64> = rounds.windows(2).map(|pair| seconds(pair[0].attested, pair[1].opened)).collect();
    if !idle.is_empty() {
        eprintln!("figures:   attested to the next one opened: {:.3} s", median(&mut idle));
    }
}

/// Seconds of a round until its version is final, and until the next round is opened.
fn times(
    row: &'static str,
    what: &str,
    mut final_s: Vec<f64>,
    mut next_s: Vec<f64>,
    (must, aim): (f64, f64),
) -> Vec<Figure> {
    vec![
        Figure::lower(row, format!("{what}: opened to final, median"), median(&mut final_s), "s").target(must, aim),
        Figure::lower(row, format!("{what}: one round to the next, median"), median(&mut next_s), "s")
            .target(must, aim),
    ]
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

const MIB: f64 = 1024.0 * 1024.0;
