"""What we add to Airflow's user interface. Every process of Airflow imports this folder: keep it light."""
