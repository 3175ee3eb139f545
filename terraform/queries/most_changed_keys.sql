-- The rows that changed most often: hot keys are what lanes and folds are tuned for. Put your table and key.
SELECT id, count(*) AS changes, max(_committed_at) AS last_change
FROM "${source}_history"."my_table"
WHERE _op <> 't'
GROUP BY 1
ORDER BY 2 DESC
LIMIT 100
