//! The words of the console, typed at its prompt or given as a one-shot command.

/// What follows `producer` or `consumer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Stop,
    Restart,
}

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Help,
    Status,
    BrokerList,
    BrokerStart(u32),
    BrokerStop(u32),
    BrokerKill(u32),
    BrokerRestart(u32),
    RestartAll,
    Producer(Action),
    Consumer(Action),
    Quit,
}

/// What the console says to `help`.
pub(super) const HELP: &str = "\
status                        brokers, leaders, traffic, and a verdict
broker list                   processes and addresses
broker stop <n>               stop broker n, leaderships handed over first
broker kill <n>               end broker n with SIGKILL, as a power cut would
broker start <n>              start broker n again
broker restart <n>            stop and start
restart all                   stop and start every broker
producer start|stop|restart   write ten records a second to topic dev
consumer start|stop|restart   read topic dev from its start and check it
quit                          stop everything";

const TOP: &[&str] = &["help", "status", "broker", "restart", "producer", "consumer", "quit"];
const BROKER: &[&str] = &["list", "start", "stop", "kill", "restart"];
const ACTION: &[&str] = &["start", "stop", "restart"];

/// Reads one command.
///
/// # Errors
/// A sentence for the person who typed it, with the nearest right word.
pub(super) fn parse(line: &str) -> Result<Word, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["help" | "?"] => Ok(Word::Help),
        ["status"] => Ok(Word::Status),
        ["quit" | "exit" | "q"] => Ok(Word::Quit),
        ["broker" | "brokers", "list"] | ["brokers"] => Ok(Word::BrokerList),
        ["broker", verb @ ("start" | "stop" | "kill" | "restart"), id] => broker(verb, id),
        ["broker", verb @ ("start" | "stop" | "kill" | "restart")] => {
            Err(format!("broker {verb} needs a number: broker {verb} 2"))
        }
        ["restart", "all"] => Ok(Word::RestartAll),
        ["producer", verb] => action(verb).map(Word::Producer),
        ["consumer", verb] => action(verb).map(Word::Consumer),
        ["broker", verb, ..] => Err(unknown(&format!("broker {verb}"), verb, BROKER)),
        ["broker" | "producer" | "consumer" | "restart"] => {
            Err(format!("\"{line}\" is only the beginning of a command; help lists them", line = line.trim()))
        }
        [first, ..] => Err(unknown(line.trim(), first, TOP)),
        [] => Err("nothing was asked; help lists the commands".to_owned()),
    }
}

fn broker(verb: &str, id: &str) -> Result<Word, String> {
    let id: u32 =
        id.parse().map_err(|_| format!("\"{id}\" is not the number of a broker: broker {verb} 2"))?;
    Ok(match verb {
        "start" => Word::BrokerStart(id),
        "stop" => Word::BrokerStop(id),
        "kill" => Word::BrokerKill(id),
        _ => Word::BrokerRestart(id),
    })
}

fn action(verb: &str) -> Result<Action, String> {
    match verb {
        "start" => Ok(Action::Start),
        "stop" => Ok(Action::Stop),
        "restart" => Ok(Action::Restart),
        other => Err(unknown(other, other, ACTION)),
    }
}

fn unknown(said: &str, word: &str, known: &[&str]) -> String {
    let nearest = known.iter().max_by(|a, b| strsim::jaro(a, word).total_cmp(&strsim::jaro(b, word)));
    match nearest.filter(|nearest| strsim::jaro(nearest, word) > 0.7) {
        Some(nearest) => {
            format!("there is no command \"{said}\"; did you mean \"{nearest}\"? help lists all")
        }
        None => format!("there is no command \"{said}\"; help lists all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_help_is_understood() {
        for line in HELP.lines() {
            let word = line.get(..30).unwrap_or(line).trim();
            let said = word.replace("<n>", "2").replace("start|stop|restart", "start");
            assert!(parse(&said).is_ok(), "{said}");
        }
    }

    #[test]
    fn the_documents_own_commands_are_understood() {
        assert_eq!(parse("broker stop 3"), Ok(Word::BrokerStop(3)));
        assert_eq!(parse("restart all"), Ok(Word::RestartAll));
        assert_eq!(parse("  producer   restart "), Ok(Word::Producer(Action::Restart)));
        assert_eq!(parse("consumer stop"), Ok(Word::Consumer(Action::Stop)));
    }

    #[test]
    fn a_mistyped_word_gets_the_nearest_right_one() {
        assert!(parse("staus").unwrap_err().contains("\"status\""));
        assert!(parse("broker kil 2").unwrap_err().contains("\"kill\""));
        assert!(parse("broker stop two").unwrap_err().contains("not the number"));
        assert!(parse("broker stop").unwrap_err().contains("needs a number"));
        assert!(parse("").unwrap_err().contains("help"));
        assert!(parse("restart").unwrap_err().contains("beginning"));
    }
}
