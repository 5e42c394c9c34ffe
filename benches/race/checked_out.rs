//! deadpool-redis as it comes: a pool of 20, a connection checked out for each command.

use deadpool_redis::{Config, Pool, PoolConfig, Runtime};
use redis::Value;

use super::{
    Contender, Failure,
    scripts::{self, Names},
};

/// A pool that lends a connection to one command at a time and tests it before each.
pub struct CheckedOut {
    pool: Pool,
}

impl CheckedOut {
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let mut config = Config::from_url(url);
        config.pool = Some(PoolConfig::new(20));
        let pool = config.create_pool(Some(Runtime::Tokio1))?;
        scripts::load(&mut pool.get().await?).await?;
        Ok(Self { pool })
    }
}

impl Contender for CheckedOut {
    type Task = Names;

    fn task(&self, number: usize) -> Names {
        Names::of(number)
    }

    async fn pair(&self, names: &mut Names) -> Result<(), Failure> {
        let reply: Value = names.acquire().query_async(&mut self.pool.get().await?).await?;
        let fence = scripts::granted(&reply)?;
        let reply: Value = names.release(fence).query_async(&mut self.pool.get().await?).await?;
        scripts::released(&reply)
    }
}
