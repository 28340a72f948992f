"""The grid's own services, spoken to as a client: MyProxy and VOMS. Every answer is bounded before it is read."""
