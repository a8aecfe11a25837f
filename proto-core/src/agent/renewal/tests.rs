//! A renewal by its timer, its answers and its failures.

use super::{RenewalStep::*, *};

const DAY: i64 = 86_400;
/// A year, of which 300 days have passed.
const YEAR: Validity = Validity {
    not_before: 0,
    not_after: 365 * DAY,
};

#[test]
fn it_begins_when_a_third_is_left_and_not_much_before() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..32 {
        let mut run = Run::new(YEAR, seed);
        let first = (0..365).find(|day| {
            run.pass_to(day * DAY);
            !run.steps().is_empty()
        });
        let first = first.unwrap();
        assert!((231..=244).contains(&first), "{first}");
        seen.insert(first);
    }
    assert!(seen.len() > 5, "a fleet is spread: {seen:?}");
}

#[test]
fn a_renewal_goes_from_request_to_proof() {
    let mut run = Run::due();
    assert_eq!(run.steps(), [Request]);
    run.machine.handle_request(run.now, Some("csr".into()));
    assert_eq!(run.steps(), [ask()]);
    assert_eq!(
        run.machine.poll_timeout(),
        Some(run.now + RENEWAL_ANSWER_TIMEOUT)
    );
    run.machine.handle_answer(run.now, Some(renewed()));
    assert_eq!(run.steps(), [Store(renewed())]);
    run.machine.handle_stored(run.now, true);
    assert_eq!((run.steps(), run.machine.poll_timeout()), (vec![], None));
    let validity = Validity {
        not_before: run.unix,
        not_after: run.unix + 365 * DAY,
    };
    assert!(!run.machine.handle_adopted(run.now, run.unix, validity));
    run.pass(100 * DAY);
    assert_eq!(run.steps(), [], "there is nothing to do for most of a year");
    run.pass(150 * DAY);
    assert_eq!(run.steps(), [Request]);
}

#[test]
fn failures_are_tried_again_ever_more_slowly() {
    let mut run = Run::due();
    for nominal in [
        120, 240, 480, 960, 1_920, 3_840, 7_680, 15_360, 21_600, 21_600,
    ] {
        assert_eq!(run.steps(), [Request]);
        run.machine.handle_request(run.now, None);
        let wait = (run.machine.poll_timeout().unwrap() - run.now).as_secs();
        assert!((nominal / 2..=nominal).contains(&wait), "{nominal}: {wait}");
        run.pass(i64::try_from(nominal).unwrap() + 1);
    }
}

#[test]
fn without_an_answer_the_same_request_is_asked_again() {
    let mut run = Run::due();
    run.steps();
    run.machine.handle_request(run.now, Some("csr".into()));
    run.steps();
    assert_eq!(run.machine.next_attempt(run.now, run.unix), None);
    run.pass(30);
    assert_eq!(run.steps(), []);
    let wait = run.machine.poll_timeout().unwrap() - run.now;
    assert!((60..=120).contains(&wait.as_secs()), "{wait:?}");
    let next = run.machine.next_attempt(run.now, run.unix).unwrap();
    assert!((60..=120).contains(&(next - run.unix)), "{next}");
    run.pass(i64::try_from(wait.as_secs()).unwrap() + 1);
    assert_eq!(run.steps(), [ask()]);
    // The answer to either is as good.
    run.machine.handle_answer(run.now, Some(renewed()));
    assert_eq!(run.steps(), [Store(renewed())]);
    run.machine.handle_answer(run.now, Some(renewed()));
    assert_eq!(run.steps(), [], "the second one is late");
    run.machine.handle_stored(run.now, false);
    run.pass(240);
    assert_eq!(
        run.steps(),
        [Request],
        "what could not be stored is made anew"
    );
}

#[test]
fn a_refusal_makes_a_fresh_request() {
    let mut run = Run::due();
    run.steps();
    run.machine.handle_request(run.now, Some("csr".into()));
    run.steps();
    run.machine.handle_answer(run.now, None);
    run.pass(120);
    assert_eq!(run.steps(), [Request]);
}

#[test]
fn it_goes_on_over_the_next_connection() {
    let mut run = Run::due();
    run.steps();
    run.machine.handle_down();
    run.machine.handle_request(run.now, Some("csr".into()));
    assert_eq!((run.steps(), run.machine.poll_timeout()), (vec![], None));
    run.machine.handle_up(run.now, run.unix);
    assert_eq!(run.steps(), [ask()]);
    run.machine.handle_down();
    assert_eq!(run.machine.poll_timeout(), None);
    run.machine.handle_up(run.now, run.unix);
    assert_eq!(run.steps(), [ask()]);
}

#[test]
fn a_wish_is_heeded_once() {
    let mut run = Run::new(YEAR, 1);
    assert!(run.machine.handle_wish(run.now));
    assert!(!run.machine.handle_wish(run.now));
    assert_eq!(run.steps(), [Request]);
    run.machine.handle_request(run.now, None);
    // The wish is not repeated before the certificate is due.
    let next = run.machine.next_attempt(run.now, run.unix).unwrap();
    assert!((231 * DAY..=244 * DAY).contains(&next), "{next}");
    let mut run = Run::new(YEAR, 1);
    run.machine.handle_down();
    assert!(run.machine.handle_wish(run.now));
    assert_eq!(run.steps(), []);
    run.machine.handle_up(run.now, run.unix);
    assert_eq!(run.steps(), [Request]);
}

#[test]
fn a_step_of_the_wall_clock_is_noticed_within_the_hour() {
    let mut run = Run::new(YEAR, 1);
    run.pass(1);
    run.unix = 300 * DAY;
    run.pass(3_600);
    assert_eq!(run.steps(), [Request]);
}

#[test]
fn a_clock_that_steps_by_a_day_makes_neither_storm_nor_silence() {
    let mut run = Run::new(YEAR, 1);
    // Set a day ahead, right again, a day behind, and right again, for 200 days.
    for step in [DAY, -DAY, -DAY, DAY].into_iter().cycle().take(200 * 24) {
        run.unix += step;
        run.pass(3_600);
        assert_eq!(run.steps(), []);
        let next = run.machine.poll_timeout().unwrap();
        assert!(next <= run.now + RENEWAL_CHECK_INTERVAL);
    }
    // When it is time, one begins within the hour, and a step back ends nothing that has begun.
    run.unix = 300 * DAY;
    run.pass(3_600);
    assert_eq!(run.steps(), [Request]);
    run.unix -= DAY;
    run.machine.handle_request(run.now, Some("csr".into()));
    assert_eq!(run.steps(), [ask()]);
    run.machine.handle_answer(run.now, Some(renewed()));
    run.machine.handle_stored(run.now, true);
    assert_eq!(run.steps(), [Store(renewed())]);
    // The gateway's clock is a day ahead; certificates are dated back by more than that.
    let validity = Validity {
        not_before: run.unix - 2 * DAY,
        not_after: run.unix + 366 * DAY,
    };
    assert!(!run.machine.handle_adopted(run.now, run.unix, validity));
    run.pass(150 * DAY);
    assert_eq!(run.steps(), []);
}

#[test]
fn nothing_begins_while_a_pair_has_to_prove_itself() {
    let mut run = Run::new(YEAR, 1);
    run.machine = Renewal::new(run.now, YEAR, true, &Seed::new([1; 32]));
    run.unix = 364 * DAY;
    run.machine.handle_up(run.now, run.unix);
    assert!(!run.machine.handle_wish(run.now));
    run.pass(10 * DAY);
    assert_eq!(run.steps(), []);
    run.machine.handle_discarded(run.now);
    run.pass(120);
    assert_eq!(run.steps(), [Request]);
}

#[test]
fn a_certificate_that_is_due_as_it_comes_makes_no_storm() {
    let mut run = Run::new(YEAR, 1);
    run.machine = Renewal::new(run.now, YEAR, true, &Seed::new([1; 32]));
    run.machine.handle_up(run.now, run.unix);
    let odd = Validity {
        not_before: 10,
        not_after: -10,
    };
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert!(run.machine.handle_adopted(run.now, run.unix, odd));
        let wait = run.machine.poll_timeout().unwrap() - run.now;
        waits.push(wait.as_secs());
        run.pass(i64::try_from(wait.as_secs()).unwrap() + 1);
        assert_eq!(run.steps(), [Request]);
        run.machine.handle_request(run.now, Some("csr".into()));
        run.machine.handle_answer(run.now, Some(renewed()));
        run.machine.handle_stored(run.now, true);
        run.steps();
    }
    assert!((60..=120).contains(&waits[0]), "{waits:?}");
    assert!(waits[7] > 7_000, "{waits:?}");
}

struct Run {
    machine: Renewal,
    now: Instant,
    unix: i64,
}

impl Run {
    fn new(validity: Validity, seed: u8) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let now = Instant::now();
        let mut machine = Renewal::new(now, validity, false, &Seed::new([seed; 32]));
        machine.handle_up(now, 0);
        Self {
            machine,
            now,
            unix: 0,
        }
    }

    fn due() -> Self {
        let mut run = Self::new(YEAR, 1);
        run.pass_to(300 * DAY);
        run
    }

    fn pass_to(&mut self, unix: i64) {
        self.pass(unix - self.unix);
    }

    /// Lets seconds pass, timers fired as they are due.
    fn pass(&mut self, seconds: i64) {
        let end = self.now + Duration::from_secs(seconds.unsigned_abs());
        let begun = (self.now, self.unix);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let passed = i64::try_from((self.now - begun.0).as_secs()).unwrap();
            self.unix = begun.1 + passed;
            self.machine.handle_timeout(self.now, self.unix);
        }
        self.now = end;
        self.unix = begun.1 + seconds;
    }

    fn steps(&mut self) -> Vec<RenewalStep> {
        std::iter::from_fn(|| self.machine.poll_step()).collect()
    }
}

fn ask() -> RenewalStep {
    Ask {
        csr_pem: "csr".into(),
    }
}

fn renewed() -> Renewed {
    Renewed {
        client_cert_pem: "cert".into(),
        gateway_ca_pem: "ca".into(),
    }
}
