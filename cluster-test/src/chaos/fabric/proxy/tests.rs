//! The proxy alone, with plain TCP echoes behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::End;
use super::{Conduct, Doors, Flow, Pace};

const DEADLINE: Duration = Duration::from_secs(20);
/// Long enough for bytes to cross loopback and two tasks; their absence after it is what a test looks for.
const NOTHING_COMES: Duration = Duration::from_millis(150);
const FROM: End = End::Broker(1);
const TO: End = End::Broker(2);

/// A door to an echo; what the echo read is told as well.
struct World {
    doors: Doors,
    at: SocketAddr,
    heard: mpsc::Receiver<Vec<u8>>,
    _echo: JoinSet<()>,
}

async fn world() -> World {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut doors = Doors::new(7, Arc::new(|_, _| Some(FROM)));
    let at = doors.open(TO).await.unwrap();
    doors.lead(at, echo.local_addr().unwrap());
    let (tell, heard) = mpsc::channel(1000);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = echo.accept().await {
            open.spawn(answer(stream, tell.clone()));
        }
    });
    World { doors, at, heard, _echo: tasks }
}

/// Echoes, and tells what it heard; the end of the stream is told as `FIN`, an error as `RST`.
async fn answer(mut stream: TcpStream, tell: mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; 64 << 10];
    loop {
        let heard = match stream.read(&mut buffer).await {
            Ok(0) => b"FIN".to_vec(),
            Ok(len) => buffer[..len].to_vec(),
            Err(_) => b"RST".to_vec(),
        };
        let last = heard == b"FIN" || heard == b"RST";
        // The answer to an end of stream shows that the other direction lives on.
        let _ = stream.write_all(&heard).await;
        tell.send(heard).await.unwrap();
        if last {
            return;
        }
    }
}

impl World {
    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    async fn hears(&mut self, want: &[u8]) {
        let heard = timeout(DEADLINE, self.heard.recv()).await.expect("nothing was heard").unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(want));
    }

    async fn hears_nothing(&mut self) {
        let heard = timeout(NOTHING_COMES, self.heard.recv()).await;
        assert!(heard.is_err(), "heard {heard:?}");
    }
}

async fn reads(stream: &mut TcpStream, want: &[u8]) {
    let mut got = vec![0; want.len()];
    timeout(DEADLINE, stream.read_exact(&mut got)).await.expect("nothing came back").unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(want));
}

async fn reads_nothing(stream: &mut TcpStream) {
    let mut one = [0];
    let read = timeout(NOTHING_COMES, stream.read(&mut one)).await;
    assert!(read.is_err(), "read {read:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the connection hangs");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_and_ends_of_streams_pass_an_open_door() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
    stream.shutdown().await.unwrap();
    world.hears(b"FIN").await;
    reads(&mut stream, b"FIN").await;
    assert_eq!(world.doors.counts(), (1, 0));
}

#[tokio::test]
async fn a_large_transfer_arrives_whole() {
    let world = world().await;
    let mut stream = world.dial().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let (mut reader, mut writer) = stream.split();
    let mut got = vec![0; sent.len()];
    // What the echo heard is not read here, and its channel is large enough for all of it.
    let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got)) };
    let (wrote, read) = timeout(DEADLINE, both).await.unwrap();
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn a_reset_hits_open_connections_and_new_ones() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
    world.doors.set(FROM, TO, Conduct::RESET);
    is_reset(&mut stream).await;
    world.hears(b"RST").await;
    is_reset(&mut world.dial().await).await;
    world.doors.heal();
    let mut stream = world.dial().await;
    stream.write_all(b"two").await.unwrap();
    reads(&mut stream, b"two").await;
}

#[tokio::test]
async fn a_black_hole_swallows_and_the_connection_is_reset_when_it_ends() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
    world.doors.set(FROM, TO, Conduct::both(Flow::Swallow));
    stream.write_all(b"two").await.unwrap();
    world.hears_nothing().await;
    reads_nothing(&mut stream).await;
    world.doors.heal();
    stream.write_all(b"three").await.unwrap();
    is_reset(&mut stream).await;
    world.hears(b"RST").await;
}

#[tokio::test]
async fn an_idle_connection_outlives_a_black_hole() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
    world.doors.set(FROM, TO, Conduct::both(Flow::Swallow));
    world.hears_nothing().await;
    world.doors.heal();
    stream.write_all(b"two").await.unwrap();
    reads(&mut stream, b"two").await;
}

#[tokio::test]
async fn held_bytes_come_out_of_the_grave_although_their_sender_is_gone() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
    world.doors.set(FROM, TO, Conduct::both(Flow::Hold));
    stream.write_all(b"zombie").await.unwrap();
    drop(stream);
    world.hears_nothing().await;
    world.doors.heal();
    world.hears(b"zombie").await;
    world.hears(b"FIN").await;
}

#[tokio::test]
async fn a_hold_one_way_lets_the_other_way_pass() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    world.doors.set(FROM, TO, Conduct { back: Flow::Hold, ..Conduct::OPEN });
    stream.write_all(b"one").await.unwrap();
    world.hears(b"one").await;
    reads_nothing(&mut stream).await;
    world.doors.heal();
    reads(&mut stream, b"one").await;
}

#[tokio::test]
async fn a_half_closed_connection_still_answers() {
    let mut world = world().await;
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
    world.doors.set(FROM, TO, Conduct { there: Flow::Close, ..Conduct::OPEN });
    world.hears(b"FIN").await;
    reads(&mut stream, b"FIN").await;
}

#[tokio::test]
async fn a_slow_link_delays_each_piece_and_keeps_their_order() {
    let world = world().await;
    let pace =
        Pace { delay: Duration::from_millis(60), jitter: Duration::from_millis(30), bytes_per_second: None };
    world.doors.set(FROM, TO, Conduct { there: Flow::Pass(pace), ..Conduct::OPEN });
    let mut stream = world.dial().await;
    let began = Instant::now();
    for number in 0..50_u8 {
        stream.write_all(&[b'a' + number % 26]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let want: Vec<u8> = (0..50_u8).map(|number| b'a' + number % 26).collect();
    reads(&mut stream, &want[..1]).await;
    assert!(began.elapsed() >= pace.delay, "{:?}", began.elapsed());
    reads(&mut stream, &want[1..]).await;
    // Pieces are under way at the same time: fifty of them do not take fifty delays.
    assert!(began.elapsed() < pace.delay * 25, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_throttled_link_takes_the_time_that_its_rate_says() {
    let world = world().await;
    let pace = Pace { bytes_per_second: Some(200_000), ..Pace::default() };
    world.doors.set(FROM, TO, Conduct { there: Flow::Pass(pace), ..Conduct::OPEN });
    let mut stream = world.dial().await;
    let sent = vec![b'x'; 100_000];
    let began = Instant::now();
    stream.write_all(&sent).await.unwrap();
    reads(&mut stream, &sent).await;
    assert!(began.elapsed() >= Duration::from_millis(480), "{:?}", began.elapsed());
}

#[tokio::test]
async fn pairs_differ_by_who_dials() {
    let mut world = world().await;
    world.doors.set(End::Clients, TO, Conduct::RESET);
    world.doors.set(TO, FROM, Conduct::RESET);
    let mut stream = world.dial().await;
    stream.write_all(b"one").await.unwrap();
    reads(&mut stream, b"one").await;
    world.hears(b"one").await;
}

#[tokio::test]
async fn a_caller_whom_nobody_knows_and_a_target_that_does_not_listen_reset() {
    let mut doors = Doors::new(7, Arc::new(|_, _| None));
    let at = doors.open(TO).await.unwrap();
    is_reset(&mut TcpStream::connect(at).await.unwrap()).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    doors.lead(at, nobody.local_addr().unwrap());
    is_reset(&mut TcpStream::connect(at).await.unwrap()).await;
    assert_eq!(doors.counts(), (0, 1));

    let mut doors = Doors::new(7, Arc::new(|_, _| Some(FROM)));
    let at = doors.open(TO).await.unwrap();
    doors.lead(at, nobody.local_addr().unwrap());
    drop(nobody);
    is_reset(&mut TcpStream::connect(at).await.unwrap()).await;
}
