-- A study of schema version 1 with one trial done, one failed, one waiting, a reference and an event.
PRAGMA journal_mode = WAL;
BEGIN TRANSACTION;
CREATE TABLE events (number INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL) STRICT;
INSERT INTO "events" VALUES(1,1.79523692211729669573e+09,'step','{"loss": 0.5}');
CREATE TABLE lease (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL,
    held INTEGER NOT NULL,
    host TEXT NOT NULL,
    machine TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_start TEXT NOT NULL,
    heartbeat REAL NOT NULL
) STRICT;
INSERT INTO "lease" VALUES(1,1,0,'host-a','',1,'',1.79523692211437916753e+09);
CREATE TABLE objectives (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO "objectives" VALUES(0,'helpful');
INSERT INTO "objectives" VALUES(1,'harmless');
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'training', 'evaluating', 'done', 'failed')),
    weights TEXT NOT NULL,
    objective_values TEXT,
    standard_errors TEXT,
    kl REAL,
    kl_standard_error REAL,
    columns TEXT,
    feasible INTEGER,
    error TEXT,
    started REAL,
    finished REAL,
    prompt_shape TEXT,
    prompt_values BLOB,
    CHECK (state <> 'done' OR objective_values IS NOT NULL)
) STRICT;
INSERT INTO "trials" VALUES(-1,'done','[]','[0.25, -1.5]','[0.125, 0.0]',0.0,0.5,'{"win_rate": 0.75}',1,NULL,NULL,1.79523692211703324314e+09,'[2, 2]',X'0000000000000000000000000000F0BF000000000000E03F00000000000000C0');
INSERT INTO "trials" VALUES(0,'done','[1.0, 0.0]','[0.25, -1.5]','[0.125, 0.0]',6.5,0.5,'{"win_rate": 0.75}',1,NULL,1.79523692211597108835e+09,1.79523692211635875698e+09,'[2, 2]',X'0000000000000000000000000000F0BF000000000000E03F00000000000000C0');
INSERT INTO "trials" VALUES(1,'failed','[0.5, 0.5]',NULL,NULL,NULL,NULL,NULL,NULL,'boom',NULL,1.79523692211673831934e+09,NULL,NULL);
INSERT INTO "trials" VALUES(2,'waiting','[0.0, 1.0]',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE INDEX events_by_kind ON events (kind, number);
COMMIT;
PRAGMA user_version = 1;
