-- The budget that a group shares, beside its monthly cap; its account is `pool:<group>`.
ALTER TABLE spend_limit ADD COLUMN pool_cents BIGINT;
ALTER TABLE spend_limit ADD COLUMN pool_paused BIGINT CHECK ((pool_paused IS NULL) = (pool_cents IS NULL));

-- Who asked, for which model, and who pays: what reports are grouped by.
ALTER TABLE usage ADD COLUMN agent_id TEXT;
ALTER TABLE usage ADD COLUMN parent_agent_id TEXT;
ALTER TABLE usage ADD COLUMN billing_group TEXT;
ALTER TABLE usage ADD COLUMN model_asked TEXT;
ALTER TABLE usage ADD COLUMN model_sent TEXT;
ALTER TABLE reservation ADD COLUMN agent_id TEXT;
ALTER TABLE reservation ADD COLUMN parent_agent_id TEXT;
ALTER TABLE reservation ADD COLUMN billing_group TEXT;
ALTER TABLE reservation ADD COLUMN model_asked TEXT;
