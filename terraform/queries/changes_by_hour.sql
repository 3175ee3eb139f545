-- How many changes of each kind a table had in each hour of the last two days. Put your table for my_table.
SELECT date_trunc('hour', _committed_at) AS hour, _op AS operation, count(*) AS changes
FROM "${source}_history"."my_table"
WHERE _committed_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp(6)) - INTERVAL '2' DAY
GROUP BY 1, 2
ORDER BY 1 DESC, 2
