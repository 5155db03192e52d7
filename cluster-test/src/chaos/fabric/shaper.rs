//! Slow, lossy and held links: packets come up from the kernel, wait in user space and go on, or do not.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nfq::{Message, Queue, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::firewall::{self, GRPC_PORT, PEER_PORT, QUEUE};
use super::{End, LinkState};

/// Packets that may wait at once; the kernel drops what exceeds it. A held link of a busy cluster stays below it: its
/// connections stop when their windows are full.
const WAITING_MAX: u32 = 4096;
/// Pause when there is nothing to do: the error of every delay.
const TICK: Duration = Duration::from_micros(300);

/// What the thread does with links now.
#[derive(Debug, Default)]
struct Orders {
    links: BTreeMap<(End, End), LinkState>,
    stop: bool,
}

/// A thread that carries packets by hand. Dropping it lets all waiting packets go.
#[derive(Debug)]
pub(super) struct Shaper {
    orders: Arc<Mutex<Orders>>,
    thread: Option<JoinHandle<()>>,
}

impl Shaper {
    /// Takes the queue.
    ///
    /// # Errors
    /// The kernel's, for example that it has no packet queues.
    pub(super) fn start(seed: u64) -> io::Result<Self> {
        let mut queue = Queue::open()?;
        queue.bind(QUEUE)?;
        queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
        queue.set_nonblocking(true);
        let orders = Arc::new(Mutex::new(Orders::default()));
        let carrier = Carrier {
            queue,
            orders: Arc::clone(&orders),
            due: BTreeMap::new(),
            held: Vec::new(),
            count: 0,
            random: StdRng::seed_from_u64(seed),
        };
        let thread = std::thread::Builder::new().name("shaper".to_owned()).spawn(|| carrier.run())?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Changes what links do. Packets of links that are not held any more go on at once.
    pub(super) fn set(&self, links: &BTreeMap<(End, End), LinkState>) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.links.clone_from(links);
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        if let Some(thread) = self.thread.take() {
            // A carrier that failed has let go of the queue, and the kernel of its packets.
            let _ = thread.join();
        }
    }
}

struct Carrier {
    queue: Queue,
    orders: Arc<Mutex<Orders>>,
    /// Packets by the time at which they go on, then by arrival.
    due: BTreeMap<(Instant, u64), Message>,
    held: Vec<((End, End), Message)>,
    count: u64,
    random: StdRng,
}

impl Carrier {
    fn run(mut self) {
        loop {
            let (links, stop) = {
                let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
                (orders.links.clone(), orders.stop)
            };
            let moved = self.take_in(&links);
            self.release(&links, stop);
            if stop {
                return;
            }
            if !moved {
                std::thread::sleep(TICK);
            }
        }
    }

    /// Takes every packet that is there; true if there was one.
    fn take_in(&mut self, links: &BTreeMap<(End, End), LinkState>) -> bool {
        let mut moved = false;
        // Nothing is there, or the kernel dropped some: either way there is no more to take now.
        while let Ok(mut message) = self.queue.recv() {
            moved = true;
            self.count += 1;
            let link = link_of(message.get_payload());
            let state = link.and_then(|link| links.get(&link)).copied().unwrap_or_default();
            match (state, link) {
                (LinkState::Shaped(shape), _) if self.random.random_range(0..1000) < shape.loss_permille => {
                    message.set_verdict(Verdict::Drop);
                    let _ = self.queue.verdict(message);
                }
                (LinkState::Shaped(shape), _) => {
                    let swing = i64::from(shape.jitter_ms) * 1000;
                    let delay = i64::from(shape.delay_ms) * 1000 + self.random.random_range(-swing..=swing);
                    let delay = Duration::from_micros(u64::try_from(delay).unwrap_or(0));
                    self.due.insert((Instant::now() + delay, self.count), message);
                }
                (LinkState::Held, Some(link)) => self.held.push((link, message)),
                _ => {
                    self.due.insert((Instant::now(), self.count), message);
                }
            }
        }
        moved
    }

    /// Lets go what is due, and what was held on links that are not held any more.
    fn release(&mut self, links: &BTreeMap<(End, End), LinkState>, all: bool) {
        let keeps = |link: &(End, End)| !all && links.get(link) == Some(&LinkState::Held);
        let (kept, free): (Vec<_>, Vec<_>) = self.held.drain(..).partition(|(link, _)| keeps(link));
        self.held = kept;
        for (_, message) in free {
            self.accept(message);
        }
        let now = Instant::now();
        while let Some(first) = self.due.first_entry()
            && (all || first.key().0 <= now)
        {
            let message = first.remove();
            self.accept(message);
        }
    }

    fn accept(&mut self, mut message: Message) {
        message.set_verdict(Verdict::Accept);
        // The kernel may have dropped the packet by itself, for example with its interface.
        let _ = self.queue.verdict(message);
    }
}

/// The link that an IPv4 packet with TCP travels on.
fn link_of(packet: &[u8]) -> Option<(End, End)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(packet.get(header + at..header + at + 2)?.try_into().ok()?))
    };
    let (source, destination) = (firewall::end(address(12)?)?, firewall::end(address(16)?)?);
    let is_service = |port: u16| port == GRPC_PORT || port == PEER_PORT;
    match (is_service(port(0)?), is_service(port(2)?)) {
        (_, true) => Some((source, destination)),
        (true, false) => Some((destination, source)),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header of 20 bytes and the ports behind it.
    fn packet(from: [u8; 4], to: [u8; 4], source: u16, destination: u16) -> Vec<u8> {
        let mut bytes = vec![0_u8; 24];
        bytes[0] = 0x45;
        bytes[12..16].copy_from_slice(&from);
        bytes[16..20].copy_from_slice(&to);
        bytes[20..22].copy_from_slice(&source.to_be_bytes());
        bytes[22..24].copy_from_slice(&destination.to_be_bytes());
        bytes
    }

    #[test]
    fn a_reply_travels_on_the_link_of_its_call() {
        let link = Some((End::Broker(1), End::Broker(2)));
        assert_eq!(link_of(&packet([10, 231, 1, 2], [10, 231, 2, 2], 40_000, PEER_PORT)), link);
        assert_eq!(link_of(&packet([10, 231, 2, 2], [10, 231, 1, 2], PEER_PORT, 40_000)), link);
        let client = Some((End::Clients, End::Broker(2)));
        assert_eq!(link_of(&packet([10, 231, 2, 2], [10, 231, 2, 1], GRPC_PORT, 40_000)), client);
    }

    #[test]
    fn what_is_no_call_has_no_link() {
        assert_eq!(link_of(&packet([10, 231, 1, 2], [10, 231, 2, 2], 1, 2)), None);
        assert_eq!(link_of(&packet([127, 0, 0, 1], [10, 231, 2, 2], 1, PEER_PORT)), None);
        assert_eq!(link_of(&[0x45, 0, 0]), None);
    }
}
