//! A site that is killed, cut off, suspended or slow at every step of a round, and is back before the round is closed or
//! only afterwards. The core is driven by hand, so that every order of events is the same each time.

use std::collections::{BTreeMap, VecDeque};

use fedledger_federation::{Command, Event, Federation, command::RoundKey};
use fedledger_ledger::{Digest, log::Log, machine::RejectionCode as _};
use fedledger_participant::node::{
    Intent, NodeEvent,
    core::{Input, Output},
};

use crate::fixture::{Ledger, MEMBERS, Purpose, Running, core, genesis, key, plan, site, trained, update};

const ALPHA: &str = "alpha";

/// To join, to train, to upload, and to contribute.
const STEPS: usize = 4;

/// What the site's updates consist of.
const VALUE: f32 = 0.5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process ends; what it was about to send is lost.
    Kill,
    /// The process ends; what it has just sent arrives.
    KillAfterSending,
    /// Nothing comes in or goes out; what needs no network goes on.
    Partition,
    /// Nothing happens at all; what it was about to send goes out before it hears anything.
    Suspend,
    /// What it does itself takes long.
    Slow,
}

const FAULTS: [Fault; 5] = [Fault::Kill, Fault::KillAfterSending, Fault::Partition, Fault::Suspend, Fault::Slow];

/// Something that the core has asked for and that takes time.
enum Job {
    Train(RoundKey),
    Upload(RoundKey),
    Submit(Intent, Box<Command>),
}

impl Job {
    fn is_work_on(&self, round: &RoundKey) -> bool {
        matches!(self, Self::Train(key) | Self::Upload(key) if key == round)
    }
}

/// Alpha's core with what its driver has under way.
struct Alpha {
    running: Running,
    jobs: VecDeque<Job>,
    events: Vec<NodeEvent>,
}

impl Alpha {
    fn start(ledger: &Ledger) -> Self {
        let running = Running::start(core(site(ALPHA)), ledger);
        let mut alpha = Self { running, jobs: VecDeque::new(), events: Vec::new() };
        alpha.take_on();
        alpha
    }

    /// Takes on what the core asks for, as the driver does.
    fn take_on(&mut self) {
        for output in self.running.take() {
            match output {
                Output::Train(task) => self.jobs.push_back(Job::Train(task.key)),
                Output::Upload(key, _) => self.jobs.push_back(Job::Upload(key)),
                Output::Submit(intent, command) => self.jobs.push_back(Job::Submit(intent, command)),
                Output::Withdraw(intent) => {
                    self.jobs.retain(|job| !matches!(job, Job::Submit(found, _) if *found == intent));
                }
                Output::Stop(key) => self.jobs.retain(|job| !job.is_work_on(&key)),
                Output::Report(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.running.input(input);
        self.take_on();
    }

    fn read(&mut self, ledger: &Ledger) {
        self.running.catch_up(ledger);
        self.take_on();
    }

    /// Does what is to be done next. False if there is nothing.
    fn work(&mut self, ledger: &mut Ledger) -> bool {
        match self.jobs.pop_front() {
            None => return false,
            Some(Job::Train(key)) => self.input(Input::Trained(key, trained(VALUE))),
            Some(Job::Upload(key)) => {
                let bytes = update(VALUE);
                ledger.blobs.insert(Digest::of(&bytes), bytes);
                self.input(Input::Uploaded(key));
            }
            Some(Job::Submit(_, command)) => {
                submit(ledger, &command);
                self.read(ledger);
            }
        }
        true
    }

    fn work_all(&mut self, ledger: &mut Ledger) {
        while self.work(ledger) {}
    }

    /// What was about to be sent arrives, and the core hears nothing of it.
    fn send_unheard(&mut self, ledger: &mut Ledger) {
        if let Some(Job::Submit(_, command)) = self.jobs.pop_front_if(|job| matches!(job, Job::Submit(..))) {
            submit(ledger, &command);
        }
    }

    fn strike(&mut self, fault: Fault, ledger: &mut Ledger) {
        match fault {
            Fault::KillAfterSending => self.send_unheard(ledger),
            Fault::Partition => {
                self.input(Input::Lost { reason: "the network is down".to_owned() });
                if self.jobs.pop_front_if(|job| matches!(job, Job::Train(_))).is_some() {
                    let key = ledger.state().plans().iter().find_map(|(_, record)| record.open).unwrap();
                    self.input(Input::Trained(key, trained(VALUE)));
                }
            }
            Fault::Kill | Fault::Suspend | Fault::Slow => {}
        }
    }

    fn recover(mut self, fault: Fault, ledger: &mut Ledger) -> Self {
        match fault {
            Fault::Kill | Fault::KillAfterSending => return Self::start(ledger),
            Fault::Partition => self.running.follow("beta", ledger),
            Fault::Suspend => {
                self.send_unheard(ledger);
                self.read(ledger);
            }
            Fault::Slow => self.read(ledger),
        }
        self.take_on();
        self
    }
}

fn submit(ledger: &mut Ledger, command: &Command) {
    ledger.try_apply(&key(ALPHA, Purpose::Participant), command);
}

/// The contributions on the ledger by member and round: the outcomes of each.
fn contributions(ledger: &Ledger) -> BTreeMap<(String, RoundKey), Vec<String>> {
    let (mut log, _) = Log::<Federation>::genesis(&genesis()).unwrap();
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for leaf in &ledger.leaves {
        let entry = log.replay(leaf).unwrap();
        let Ok(Command::Contribute(command)) = Command::decode(&entry.transaction.kind, &entry.transaction.payload)
        else {
            continue;
        };
        let author = log.machine().members().author(&entry.transaction.author).unwrap().member.clone();
        let outcome = match entry.result.unwrap() {
            Ok(event) => {
                assert!(matches!(event, Event::Contributed { .. }));
                "accepted".to_owned()
            }
            Err(rejection) => rejection.code().to_owned(),
        };
        found.entry((author, command.key)).or_default().push(outcome);
    }
    found
}

/// Lets a fault strike after so many steps, and end before the round is closed or after; the ledger of two rounds.
fn two_rounds(steps: usize, fault: Fault, late: bool) -> (Ledger, [RoundKey; 2], Vec<NodeEvent>) {
    let mut ledger = Ledger::new();
    let plan = ledger.start_plan(plan(), &MEMBERS);
    let first = ledger.open_round(plan);
    let mut alpha = Alpha::start(&ledger);
    for _ in 0..steps {
        assert!(alpha.work(&mut ledger), "there is nothing to do");
    }
    alpha.strike(fault, &mut ledger);
    for other in &MEMBERS[1..] {
        ledger.contribute(other, first, 0.25);
        if fault == Fault::Slow {
            alpha.read(&ledger);
        }
    }
    if late {
        ledger.complete_round(first);
        let second = ledger.open_round(plan);
        alpha = alpha.recover(fault, &mut ledger);
        alpha.work_all(&mut ledger);
        return (ledger, [first, second], alpha.events);
    }
    alpha = alpha.recover(fault, &mut ledger);
    alpha.work_all(&mut ledger);
    ledger.complete_round(first);
    let second = ledger.open_round(plan);
    alpha.read(&ledger);
    alpha.work_all(&mut ledger);
    (ledger, [first, second], alpha.events)
}

#[test]
fn who_is_back_in_time_contributes_and_who_is_not_takes_part_in_the_next_round() {
    for steps in 0..=STEPS {
        for fault in FAULTS {
            for late in [false, true] {
                let case = format!("{fault:?} after {steps} steps, late: {late}");
                let (ledger, [first, second], _) = two_rounds(steps, fault, late);
                let done = if fault == Fault::KillAfterSending && matches!(steps, 0 | 3) { steps + 1 } else { steps };
                let certificate = ledger.state().certificate(&first).unwrap();
                let contributed = certificate.contributed.iter().any(|member| member == ALPHA);
                assert_eq!(contributed, !late || done == STEPS, "{case}");
                if !contributed {
                    let reason = if done == 0 { "not_joined" } else { "not_contributed" };
                    assert_eq!(certificate.missing[ALPHA], reason, "{case}");
                }
                let certificate = ledger.state().certificate(&second).unwrap();
                assert_eq!(certificate.contributed, [ALPHA], "{case}: the next round");
                let twice = contributions(&ledger).into_iter().find(|(_, outcomes)| outcomes.len() != 1);
                assert_eq!(twice, None, "{case}: more was sent than needed");
            }
        }
    }
}

#[test]
fn a_contribution_that_arrives_after_the_round_was_closed_is_refused_on_record() {
    let (ledger, [first, second], events) = two_rounds(STEPS - 1, Fault::Suspend, true);
    let contributions = contributions(&ledger);
    assert_eq!(contributions[&(ALPHA.to_owned(), first)], ["round_closed"]);
    assert_eq!(contributions[&(ALPHA.to_owned(), second)], ["accepted"]);
    assert_eq!(ledger.state().certificate(&first).unwrap().contributed, MEMBERS[1..]);
    let rejected = |event: &NodeEvent| matches!(event, NodeEvent::Rejected { code, .. } if code == "round_closed");
    assert_eq!(events.iter().filter(|event| rejected(event)).count(), 1, "{events:?}");
}
