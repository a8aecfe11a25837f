//! What a process does with its machine's disk: one step after the other, each in its time, so that a crash may come between
//! any two.

use std::{collections::VecDeque, time::Duration};

use super::Ctx;
use crate::At;

/// One call of the operating system.
#[derive(Clone, Debug)]
pub(super) enum DiskStep {
    Write(&'static str, Vec<u8>),
    Sync(&'static str),
    Rename(&'static str, &'static str),
    SyncNames,
}

/// Work that waits for the disk, in order, each with what to tell once it is durable.
#[derive(Debug)]
pub(super) struct Files<T> {
    work: VecDeque<(At, Step<T>)>,
}

#[derive(Debug)]
enum Step<T> {
    Disk(DiskStep),
    Done(T),
}

impl<T> Files<T> {
    pub(super) fn new() -> Self {
        Self {
            work: VecDeque::new(),
        }
    }

    /// The steps that replace a file so that a crash leaves either content.
    pub(super) fn replace(name: &'static str, bytes: Vec<u8>) -> Vec<DiskStep> {
        vec![
            DiskStep::Write(TEMPORARY, bytes),
            DiskStep::Sync(TEMPORARY),
            DiskStep::Rename(TEMPORARY, name),
            DiskStep::SyncNames,
        ]
    }

    /// Queues work behind what is under way.
    pub(super) fn push(&mut self, ctx: &mut Ctx<'_>, steps: Vec<DiskStep>, done: T) {
        let mut at = self.work.back().map_or(ctx.at, |(at, _)| *at).max(ctx.at);
        for step in steps {
            at += ctx.choices.scaled_time(Duration::from_micros(50), STEP_MAX);
            self.work.push_back((at, Step::Disk(step)));
        }
        self.work.push_back((at, Step::Done(done)));
    }

    pub(super) fn next_at(&self) -> Option<At> {
        self.work.front().map(|(at, _)| *at)
    }

    /// Does what is due, up to the first work that is done.
    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>) -> Option<T> {
        while self.next_at().is_some_and(|at| at <= ctx.at) {
            match self.work.pop_front()? {
                (_, Step::Disk(step)) => step.perform(ctx),
                (_, Step::Done(done)) => return Some(done),
            }
        }
        None
    }
}

impl DiskStep {
    fn perform(self, ctx: &mut Ctx<'_>) {
        match self {
            Self::Write(name, bytes) => ctx.disk.write(name, &bytes),
            Self::Sync(name) => drop(ctx.disk.sync(name)),
            Self::Rename(from, to) => drop(ctx.disk.rename(from, to)),
            Self::SyncNames => ctx.disk.sync_dir(),
        }
    }
}

const TEMPORARY: &str = "temporary";
/// A slow disk's answer.
const STEP_MAX: At = Duration::from_millis(40);
