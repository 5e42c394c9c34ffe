//! A relay that makes a server slow: every reply arrives later.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// Relays to `target` from the address that is returned, for as long as the runtime lives.
pub(crate) async fn start(target: SocketAddr, delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(relay(near, target, delay));
        }
    });
    Ok(address)
}

/// Ends with the first side that closes; the other one is closed with it.
async fn relay(near: TcpStream, target: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut requests, mut to_client) = near.into_split();
    let (mut replies, mut to_server) = far.into_split();
    tokio::select! {
        done = tokio::io::copy(&mut requests, &mut to_server) => done.map(drop),
        done = async {
            // One after the other is enough: with a depth of 1 there is one reply at a time.
            let mut reply = [0; 16 * 1024];
            loop {
                let length = replies.read(&mut reply).await?;
                if length == 0 {
                    return Ok(());
                }
                sleep(delay).await;
                to_client.write_all(&reply[..length]).await?;
            }
        } => done,
    }
}
