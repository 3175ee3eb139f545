# Stands in for the script.
