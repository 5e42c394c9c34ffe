//! [`read_snapshot`]: one `GET /v1/snapshot`, bounded in size and checked before it is believed.
//!
//! Each read has a connection of its own: a unix socket costs microseconds, and a kept one would hide that nobody new
//! gets through.

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use spool_lock::Snapshot;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::target::Address;

/// Sixteen times what a service should ever send.
const MAX_BYTES: usize = 1024 * 1024;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("no answer in time")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("larger than 1 MiB")]
    TooLarge,
    /// It answered, in a form that is not ours: the two versions do not go together.
    #[error("{0}")]
    Schema(String),
}

/// Reads one snapshot. The caller brings the deadline; a drop closes the connection.
pub(crate) async fn read_snapshot(address: &Address) -> Result<Snapshot, SnapshotError> {
    let body = match address {
        Address::Unix(path) => get(UnixStream::connect(path).await).await?,
        Address::Http(address) => get(TcpStream::connect(address).await).await?,
    };
    decode(&body)
}

async fn get<S>(stream: std::io::Result<S>) -> Result<Bytes, SnapshotError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = stream.map_err(SnapshotError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = hyper::Uri::from_static("/v1/snapshot");
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(SnapshotError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(body_error)?;
        Ok(body.to_bytes())
    };
    // The connection is driven here and not by a task of its own, so that nothing outlives a caller who gives up.
    tokio::pin!(exchange, connection);
    tokio::select! {
        body = &mut exchange => body,
        // It ends first when the service closes; what it has read by then is still to be had.
        _ = &mut connection => exchange.await,
    }
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> SnapshotError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => SnapshotError::Http(*error),
        Err(error) if error.is::<LengthLimitError>() => SnapshotError::TooLarge,
        Err(error) => SnapshotError::Schema(error.to_string()),
    }
}

/// Checks the schema first, so that a version that is not ours is called that, and not by its first odd field.
fn decode(body: &[u8]) -> Result<Snapshot, SnapshotError> {
    let schema_error = |error: serde_json::Error| SnapshotError::Schema(format!("not a snapshot: {error}"));
    let value: serde_json::Value = serde_json::from_slice(body).map_err(schema_error)?;
    match value.get("schema").and_then(serde_json::Value::as_u64) {
        Some(schema) if schema == u64::from(Snapshot::SCHEMA) => {
            serde_json::from_value(value).map_err(schema_error)
        }
        Some(schema) => Err(SnapshotError::Schema(format!(
            "snapshot schema {schema}, this exporter reads {}; use the same version on both sides",
            Snapshot::SCHEMA
        ))),
        None => Err(SnapshotError::Schema("not a snapshot: it has no schema".to_owned())),
    }
}
