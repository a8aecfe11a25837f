//! The texts around deliberate faults: their patches, the verdict of a sweep, the table of results.

use std::fmt::Write;

use crate::run::Kind;

/// A deliberate fault in the core, as its patch describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Name of its file, without the ending: a number, then words.
    pub name: String,
    /// What is wrong, in one sentence.
    pub fault: String,
    /// What a user would see of it, in one sentence.
    pub effect: String,
    /// Whose world shows it.
    pub world: Kind,
}

/// The failure that a sweep tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that failed.
    pub seed: u64,
    /// Seeds that were run until then, this one included.
    pub ran: u64,
    /// The oracle that saw it.
    pub oracle: String,
    /// Virtual time since the start of the run, and what the oracle says.
    pub rest: String,
}

/// What became of one mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An oracle saw it.
    Found(Failure),
    /// No seed failed.
    Clean,
    /// The sweep gave no verdict, for this reason.
    Unclear(String),
}

impl Mutant {
    /// Reads the head of a patch: one line `# ` for the fault and one for its effect, one more for a world that is not the
    /// tunnel's, then the first file.
    #[must_use]
    pub fn read(name: &str, patch: &str) -> Option<Self> {
        let mut lines = patch.lines().peekable();
        let mut sentence = || Some(lines.next()?.strip_prefix("# ")?.to_owned());
        let (fault, effect) = (sentence()?, sentence()?);
        let world = match lines.next_if_eq(&"# world: peers") {
            Some(_) => Kind::Peers,
            None => Kind::Tunnel,
        };
        lines.next()?.starts_with("diff --git ").then(|| Self {
            name: name.to_owned(),
            fault,
            effect,
            world,
        })
    }

    /// Tells whether somebody who writes `name` means this one: with or without the number.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let words = self.name.split_once('-').map(|(_, words)| words);
        self.name == name || words == Some(name)
    }
}

impl Failure {
    /// Finds the first line of the form `FAILED seed=<n> ran=<n> oracle=<name> at=<time>: <text>`.
    #[must_use]
    pub fn find(output: &str) -> Option<Self> {
        output.lines().find_map(Self::parse)
    }

    fn parse(line: &str) -> Option<Self> {
        let (seed, rest) = line.strip_prefix("FAILED seed=")?.split_once(" ran=")?;
        let (ran, rest) = rest.split_once(" oracle=")?;
        let (oracle, rest) = rest.split_once(" at=")?;
        Some(Self {
            seed: seed.parse().ok()?,
            ran: ran.parse().ok()?,
            oracle: oracle.to_owned(),
            rest: rest.to_owned(),
        })
    }
}

impl Verdict {
    /// Reads a sweep's exit code and what it wrote: 0 says that no seed failed, 1 that one did.
    #[must_use]
    pub fn of_sweep(code: Option<i32>, output: &str) -> Self {
        match (code, Failure::find(output)) {
            (Some(0), None) => Self::Clean,
            (Some(1), Some(failure)) => Self::Found(failure),
            (Some(code), failure) => {
                let line = if failure.is_some() { "a" } else { "no" };
                Self::Unclear(format!("sweep ended with {code} and {line} line `FAILED`"))
            }
            (None, _) => Self::Unclear("sweep was killed".to_owned()),
        }
    }
}

/// Renders the results as Markdown: fault, oracle, seeds.
#[must_use]
pub fn table(results: &[(Mutant, Verdict)]) -> String {
    let mut text = String::from("| Fault | Oracle | Seeds |\n|---|---|---:|\n");
    for (mutant, verdict) in results {
        let (oracle, seeds) = match verdict {
            // With several threads others may have been run meanwhile.
            Verdict::Found(failure) => {
                let seeds = failure.seed.saturating_add(1);
                (format!("`{}`", failure.oracle), seeds.to_string())
            }
            Verdict::Clean => ("**not found**".to_owned(), String::new()),
            Verdict::Unclear(why) => (format!("**not found**: {why}"), String::new()),
        };
        // Writing to a string cannot fail.
        let _ok = writeln!(
            text,
            "| {} | {} | {seeds} |",
            cell(&mutant.fault),
            cell(&oracle)
        );
    }
    text
}

/// Puts `text` between the markers [`BEGIN`] and [`END`]; none where they are not there, each once and in this order.
#[must_use]
pub fn replace_between(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let again = [before, old, after]
        .iter()
        .any(|part| part.contains(BEGIN) || part.contains(END));
    (!again).then(|| format!("{before}{BEGIN}\n{text}{END}{after}"))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The table begins after this line of a document.
pub const BEGIN: &str = "<!-- mutants: begin -->";
/// The table ends before this line of a document.
pub const END: &str = "<!-- mutants: end -->";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn a_failure_is_read_whatever_surrounds_it() {
        let output = "seed 6\nFAILED seed=7 ran=8 oracle=bytes at=1.25s: got at=1 ran=2\nFAILED seed=9 ran=9 oracle=x at=0s: y\n";
        let failure = Failure::find(output).unwrap();
        assert_eq!((failure.seed, failure.ran), (7, 8));
        assert_eq!(failure.oracle, "bytes");
        assert_eq!(failure.rest, "1.25s: got at=1 ran=2");
        for bad in [
            "",
            "failed seed=7 ran=8 oracle=bytes at=1s: x",
            "FAILED seed=x ran=8 oracle=bytes at=1s: x",
            "FAILED seed=7 oracle=bytes ran=8 at=1s: x",
            "FAILED seed=7 ran=8 oracle=bytes",
        ] {
            assert_eq!(Failure::find(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_exit_code_1_with_a_failure_finds_a_mutant() {
        let line = "FAILED seed=1 ran=2 oracle=hang at=3s: x";
        assert!(matches!(
            Verdict::of_sweep(Some(1), line),
            Verdict::Found(_)
        ));
        assert_eq!(Verdict::of_sweep(Some(0), "ok\n"), Verdict::Clean);
        for (code, output) in [
            (Some(0), line),
            (Some(1), ""),
            (Some(2), line),
            (None, line),
        ] {
            let verdict = Verdict::of_sweep(code, output);
            assert!(matches!(verdict, Verdict::Unclear(_)), "{code:?} {output}");
        }
    }

    #[test]
    fn the_table_names_what_was_missed() {
        let failure = Failure::find("FAILED seed=40 ran=41 oracle=load at=3s: x").unwrap();
        let results = [
            (mutant("01-a", "One | two."), Verdict::Found(failure)),
            (mutant("02-b", "Three."), Verdict::Clean),
            (mutant("03-c", "Four."), Verdict::of_sweep(None, "")),
        ];
        let wanted = "| Fault | Oracle | Seeds |\n|---|---|---:|\n\
                      | One \\| two. | `load` | 41 |\n\
                      | Three. | **not found** |  |\n\
                      | Four. | **not found**: sweep was killed |  |\n";
        assert_eq!(table(&results), wanted);
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let written = replace_between(&document, "new\n").unwrap();
        assert_eq!(written, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replace_between(&written, "new\n"), Some(written));
        for bad in [
            String::new(),
            BEGIN.to_owned(),
            END.to_owned(),
            format!("{END}{BEGIN}"),
            format!("{BEGIN}{END}{BEGIN}"),
            format!("{BEGIN}{BEGIN}{END}"),
        ] {
            assert_eq!(replace_between(&bad, ""), None, "{bad}");
        }
    }

    #[test]
    fn a_mutant_is_called_with_and_without_its_number() {
        let mutant = mutant("07-two-words", "x");
        assert!(mutant.is_called("07-two-words") && mutant.is_called("two-words"));
        assert!(!mutant.is_called("words") && !mutant.is_called("07"));
    }

    #[test]
    fn a_patch_names_its_world() {
        assert_eq!(mutant("07-a", "x").world, Kind::Tunnel);
        let patch = "# Fault.\n# Effect.\n# world: peers\ndiff --git a/x b/x\n";
        assert_eq!(Mutant::read("07-a", patch).unwrap().world, Kind::Peers);
        let other = patch.replace("peers", "moon");
        assert_eq!(Mutant::read("07-a", &other), None);
    }

    #[test]
    fn every_patch_says_what_it_does_and_touches_the_core_only() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let patch = fs::read_to_string(&path).unwrap();
            assert!(Mutant::read(name, &patch).is_some(), "{name}");
            for line in patch.lines().filter(|line| line.starts_with("+++ ")) {
                assert!(line.starts_with("+++ b/proto-core/src/"), "{name}: {line}");
            }
            count += 1;
        }
        assert!(count >= 24, "{count}");
    }

    #[test]
    fn every_patch_fits_the_core() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in fs::read_dir(root.join("mutants")).unwrap() {
            let path = entry.unwrap().path();
            let patch = fs::read_to_string(&path).unwrap();
            for file in patch.split("\n+++ b/").skip(1) {
                let (name, hunks) = file.split_once('\n').unwrap();
                let core = fs::read_to_string(root.join("..").join(name)).unwrap();
                for hunk in hunks.split("@@ -").skip(1) {
                    let lines = hunk.lines().skip(1);
                    let lines = lines.take_while(|line| line.starts_with([' ', '-', '+']));
                    let old: Vec<&str> = lines
                        .filter(|line| !line.starts_with('+'))
                        .map(|line| &line[1..])
                        .collect();
                    assert!(core.contains(&old.join("\n")), "{}", path.display());
                }
            }
        }
    }

    fn mutant(name: &str, fault: &str) -> Mutant {
        let patch = format!("# {fault}\n# Effect.\ndiff --git a/x b/x\n");
        Mutant::read(name, &patch).unwrap()
    }
}
