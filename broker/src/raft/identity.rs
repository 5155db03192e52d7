//! Who a broker is, as it says at the start of every link.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;
use wire::ids::{BrokerId, ReplicaId};

/// What a broker says about itself to its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalIdentity {
    /// `node.id`.
    pub broker_id: BrokerId,
    /// Identity of the data directory; a broker that lost its disk comes back with another one.
    pub incarnation: Uuid,
    /// The cluster that the data directory belongs to, once it belongs to one.
    pub cluster_id: Option<Uuid>,
    /// This data directory's replica in the metadata group.
    pub metadata_replica: ReplicaId,
    /// Where clients reach the gRPC listener, `host:port`.
    pub grpc: String,
    /// Where clients reach the HTTP listener, `host:port`.
    pub http: String,
    /// Where peers reach this broker, `host:port`.
    pub peer: String,
    /// Failure domain; empty if none was given.
    pub rack: String,
    /// Version of the software.
    pub version: String,
}

/// The first words on a link: an identity and the process that speaks.
///
/// | offset | bytes | field                                             |
/// |-------:|------:|---------------------------------------------------|
/// |      0 |     4 | magic `ALTP`                                      |
/// |      4 |     2 | version of the peer protocol, 1                   |
/// |      6 |     4 | broker id                                         |
/// |     10 |     8 | process: random number of this start              |
/// |     18 |    16 | incarnation                                       |
/// |     34 |     1 | 1 if a cluster id is known, else 0                |
/// |     35 |    16 | cluster id, zero if none                          |
/// |     51 |     8 | replica id in the metadata group                  |
/// |     59 |     … | gRPC, HTTP, peer address, rack, version: each a u16 length and UTF-8 |
///
/// Integers are little endian. A text is at most 1024 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub identity: LocalIdentity,
    /// Random number of this start of the process: another one means that the broker restarted.
    pub process: u64,
}

impl std::ops::Deref for Hello {
    type Target = LocalIdentity;
    fn deref(&self) -> &LocalIdentity {
        &self.identity
    }
}

/// First bytes of a [`Hello`].
const MAGIC: [u8; 4] = *b"ALTP";
/// Version of the peer protocol that this broker speaks.
pub const PROTOCOL_VERSION: u16 = 1;
const TEXT_MAX: usize = 1024;
const FIXED_LEN: usize = 59;

/// Why a greeting was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The bytes are not a greeting.
    #[error("the greeting is malformed: {0}")]
    Malformed(&'static str),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {theirs} of the peer protocol, this broker version {PROTOCOL_VERSION}")]
    Version {
        /// What the peer speaks.
        theirs: u16,
    },
}

impl Hello {
    /// The bytes of the table above.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(&MAGIC);
        out.put_u16_le(PROTOCOL_VERSION);
        out.put_u32_le(self.broker_id.0);
        out.put_u64_le(self.process);
        out.put_slice(self.incarnation.as_bytes());
        out.put_u8(u8::from(self.cluster_id.is_some()));
        out.put_slice(self.cluster_id.unwrap_or_default().as_bytes());
        out.put_u64_le(self.metadata_replica.0);
        for text in [&self.grpc, &self.http, &self.peer, &self.rack, &self.version] {
            let kept = text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default();
            out.put_u16_le(u16::try_from(kept.len()).unwrap_or_default());
            out.put_slice(kept.as_bytes());
        }
        out.freeze()
    }

    /// Reads the bytes of the table above; bytes after the last text belong to later versions and are ignored.
    ///
    /// # Errors
    /// [`HelloError`], if the bytes are not a greeting of this version.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, HelloError> {
        if bytes.len() < FIXED_LEN {
            return Err(HelloError::Malformed("too short"));
        }
        let mut magic = [0; 4];
        bytes.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(HelloError::Malformed("wrong magic"));
        }
        let theirs = bytes.get_u16_le();
        if theirs != PROTOCOL_VERSION {
            return Err(HelloError::Version { theirs });
        }
        let broker_id = BrokerId(bytes.get_u32_le());
        let process = bytes.get_u64_le();
        let incarnation = get_uuid(&mut bytes);
        let cluster_known = bytes.get_u8();
        let cluster = get_uuid(&mut bytes);
        let cluster_id = match cluster_known {
            0 => None,
            1 => Some(cluster),
            _ => return Err(HelloError::Malformed("cluster flag is neither 0 nor 1")),
        };
        let metadata_replica = ReplicaId(bytes.get_u64_le());
        let identity = LocalIdentity {
            broker_id,
            incarnation,
            cluster_id,
            metadata_replica,
            grpc: get_text(&mut bytes)?,
            http: get_text(&mut bytes)?,
            peer: get_text(&mut bytes)?,
            rack: get_text(&mut bytes)?,
            version: get_text(&mut bytes)?,
        };
        Ok(Self { identity, process })
    }
}

fn get_uuid(bytes: &mut &[u8]) -> Uuid {
    let mut raw = [0; 16];
    bytes.copy_to_slice(&mut raw);
    Uuid::from_bytes(raw)
}

fn get_text(bytes: &mut &[u8]) -> Result<String, HelloError> {
    if bytes.remaining() < 2 {
        return Err(HelloError::Malformed("a text has no length"));
    }
    let len = usize::from(bytes.get_u16_le());
    if len > TEXT_MAX {
        return Err(HelloError::Malformed("a text is longer than 1024 bytes"));
    }
    let (text, rest) = bytes.split_at_checked(len).ok_or(HelloError::Malformed("a text is cut off"))?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| HelloError::Malformed("a text is not UTF-8"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::{BrokerId, Hello, HelloError, LocalIdentity, ReplicaId, Uuid};

    pub(crate) fn hello() -> Hello {
        let identity = LocalIdentity {
            broker_id: BrokerId(3),
            incarnation: Uuid::from_u128(0x11),
            cluster_id: Some(Uuid::from_u128(0x22)),
            metadata_replica: ReplicaId(9),
            grpc: "a:1".into(),
            http: "b:2".into(),
            peer: "c:3".into(),
            rack: String::new(),
            version: "0.1".into(),
        };
        Hello { identity, process: 0x0102 }
    }

    #[test]
    fn greeting_has_these_bytes() {
        let golden = [
            &b"ALTP\x01\x00\x03\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00"[..],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 1],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x22],
            &b"\x09\x00\x00\x00\x00\x00\x00\x00\x03\x00a:1\x03\x00b:2\x03\x00c:3\x00\x00\x03\x000.1"[..],
        ]
        .concat();
        assert_eq!(hello().encode(), golden);
        assert_eq!(Hello::decode(&golden), Ok(hello()));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = hello().encode().to_vec();
        bytes[4] = 7;
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Version { theirs: 7 }));
    }

    #[test]
    fn every_cut_greeting_is_refused() {
        let bytes = hello().encode();
        assert!((0..bytes.len()).all(|len| Hello::decode(&bytes[..len]).is_err()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hello::decode(&bytes);
            let mut framed = b"ALTP\x01\x00".to_vec();
            framed.extend(bytes);
            let _ = Hello::decode(&framed);
        }
    }
}
