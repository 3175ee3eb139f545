-- Files, rows and bytes of a table by tier: log, delta and base are read for current rows. Put your table for my_table.
SELECT partition._tier AS tier, sum(file_count) AS files, sum(record_count) AS row_count, sum(total_size) AS bytes
FROM "${source}_lake"."my_table$partitions"
GROUP BY 1
ORDER BY 4 DESC
