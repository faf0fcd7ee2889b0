"""What every service needs and no service owns. Nothing in here knows a domain noun."""
