-- What is missing from which table, since when and why; accepted holes stay missing for good.
SELECT table_name, status, reason, opened_at, accepted_by, accepted_because
FROM "${source}_lake"."holes"
ORDER BY status DESC, opened_at
