-- How fresh the cut is: the time of the newest commit that every cut view shows, and how many seconds ago that was.
SELECT
  committed_at AS complete_until,
  date_diff('second', committed_at, CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp(6))) AS seconds_ago
FROM "${source}_cut"."watermark"
